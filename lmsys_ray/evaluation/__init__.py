"""Evaluates a run against labels: metrics with intervals, slices, calibration, position bias, and a fitted blend."""
