"""How a space is explored. Nothing is imported here, so that each part loads only what it needs."""
