"""What may vary: candidates, spaces over them, and the named spaces."""
