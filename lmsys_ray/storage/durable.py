"""Local files that survive a power cut: their bytes are on the disk before their names, and so are folders."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""Errors of file systems that do not sync folders; these write names by themselves."""


def sync_file(path: Path) -> None:
    """Returns once the bytes of a file are on the disk; raises `OSError` where they cannot be written."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Returns once the names in a folder are on the disk, as far as its file system supports that."""
    try:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def sync_tree(folder: Path) -> None:
    """Syncs a folder and all files and folders below it."""
    for place, _, files in os.walk(folder):
        for name in files:
            if not Path(place, name).is_symlink():
                sync_file(Path(place, name))
        sync_folder(Path(place))


def make_folder(folder: Path, parents: bool = True) -> None:
    """Makes a folder, and where `parents` those above it, so that they survive a power cut."""
    if folder.is_dir():
        return
    if parents:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def replace(aside: Path, path: Path) -> None:
    """Renames a file or folder to `path`; after a power cut either the old or the new one is there, whole."""
    (sync_tree if aside.is_dir() else sync_file)(aside)
    os.replace(aside, path)
    sync_folder(path.parent)


@contextmanager
def replaced_file(path: Path, aside: Path, lasting: bool = True) -> Iterator[Path]:
    """Gives `aside`, a path whose file replaces `path` when the block ends without an error.

    Unless `lasting`, it is not synced: a power cut may leave it empty.
    """
    try:
        yield aside
        (replace if lasting else os.replace)(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """Gives an empty directory that becomes `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
