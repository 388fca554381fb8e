"""Writes directories that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmsys_ray.errors import UsageError


def check_free(target: Path) -> None:
    """Raises `UsageError` where `target` is there already and is not an empty directory."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output: {target} is there already; give another directory or remove it first")


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Gives an empty directory that takes the place of `target` when the block ends without an error.

    Raises `UsageError` as `check_free` does.
    """
    check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        aside.chmod(0o755)
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
