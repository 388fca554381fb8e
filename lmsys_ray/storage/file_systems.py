"""Loads the libraries of fsspec behind URLs and sets how long they wait for a storage."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from fsspec import get_filesystem_class
from upath import UPath

from lmsys_ray.storage.patience import bound_waiting


@cache
def load(protocol: str) -> None:
    """Loads the library for a protocol; raises `ImportError` where it is missing, `ValueError` where none is known.

    This runs in a thread: Ray cancels a task by interrupting the main thread of its process, and a package whose import
    was interrupted can't be imported again in that process.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: bound_waiting(protocol, get_filesystem_class(protocol))).result()


def file_system(path: UPath) -> Any:
    """Returns the fsspec file system of a path, also in a process that received the path from another."""
    load(path.protocol)
    return path.fs
