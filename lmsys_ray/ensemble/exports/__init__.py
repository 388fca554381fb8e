"""Outputs of a run beside its submission."""
