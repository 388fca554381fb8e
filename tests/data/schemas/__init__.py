"""Schemas of preference data."""
