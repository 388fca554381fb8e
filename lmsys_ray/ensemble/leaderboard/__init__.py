"""Strengths of the models whose responses were compared."""
