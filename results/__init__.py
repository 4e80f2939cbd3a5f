"""What came out: fronts, reports, exports."""
