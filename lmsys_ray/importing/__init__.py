"""Converts artefacts of other programs into those that the scorer reads."""
