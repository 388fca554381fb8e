"""Compares scorers on the same rows at the same time, each side in a process of its own."""
