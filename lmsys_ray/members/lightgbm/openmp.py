"""Finds the OpenMP library that LightGBM needs and small images lack, such as those of Debian and Ubuntu."""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lmsys_ray.errors import UsageError

_NAME = "libgomp.so.1"


@cache
def load_openmp() -> bool:
    """Loads the system's library, or else PyTorch's, so that LightGBM finds it; returns whether there is one."""
    spec = find_spec("torch")
    beside = [Path(folder) / "lib" / _NAME for folder in (spec and spec.submodule_search_locations) or ()]
    for place in (_NAME, *map(str, beside)):
        try:
            ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return True
    return False


def check_openmp() -> None:
    """Raises `UsageError` where LightGBM cannot be loaded."""
    if not load_openmp():
        raise UsageError(
            f"lightgbm: {_NAME} is not on this machine; install it, by apt-get install libgomp1 or dnf install libgomp"
        )
