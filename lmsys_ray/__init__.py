"""lmsys_ray: a distributed batch scorer for pairwise human preference, on Ray."""

__version__ = "0.1.0"

CLASSES = ("a", "b", "tie")
"""The order of the three classes wherever an array has a class axis: A preferred, B preferred, tie."""
