"""Writes directories atomically: as a whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmsys_ray.errors import UsageError
from lmsys_ray.storage import durable


def check_free(target: Path) -> None:
    """Raises `UsageError` where `target` exists and is not an empty directory."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output: {target} exists already; give another directory or remove it first")


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Gives an empty directory that becomes `target` when the block ends without an error.

    Raises `UsageError` as `check_free` does.
    """
    check_free(target)
    with durable.replaced_directory(target) as aside:
        yield aside
        aside.chmod(0o755)
