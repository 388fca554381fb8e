"""Measures the scorers side by side: the same rows, the same minutes, each side in a process of its own."""
