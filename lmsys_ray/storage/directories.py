"""Writes directories atomically: as a whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmsys_ray.errors import UsageError
from lmsys_ray.storage import durable
from lmsys_ray.storage.errors import storage_errors


def check_free(target: Path) -> None:
    """Raises `UsageError` where `target` exists and is not an empty directory, `RunError` where it cannot be made."""
    with storage_errors(target, "made"):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"--output: {target} exists already; give another directory or remove it first")
        above = next(folder for folder in target.absolute().parents if folder.exists())
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=above):  # permissions do not tell all
            pass


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Gives an empty directory that becomes `target` when the block ends without an error.

    Raises `UsageError` and `RunError` as `check_free` does, and `RunError` where it cannot be written, as when the disk
    is full.
    """
    check_free(target)
    with storage_errors(target, "made"), durable.replaced_directory(target) as aside:
        yield aside
        aside.chmod(0o755)
