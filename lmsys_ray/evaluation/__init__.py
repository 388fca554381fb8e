"""Judges a run against labels: scores with intervals, slices, calibration, position bias, and a better blend."""
