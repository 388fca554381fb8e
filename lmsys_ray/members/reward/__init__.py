"""Scalar reward models: a score for each response by itself."""
