"""lmsys_ray: a distributed batch scorer for pairwise human preference, on Ray."""

import os

# Once this package has left Ray, no thread that was waiting for it may start another one unasked. Read by `import ray`.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

__version__ = "0.1.0"

CLASSES = ("a", "b", "tie")
"""The order of the three classes wherever an array has a class axis: A preferred, B preferred, tie."""

SWAPPED = [1, 0, 2]
"""Where each class lies once A and B have changed places."""
