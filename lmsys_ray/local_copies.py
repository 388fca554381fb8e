"""What each machine makes or fetches once and keeps: models out of object storage, models in another form."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from upath import UPath

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.storage import path_of, versions
from lmsys_ray.storage_errors import reaching

CACHE_VARIABLE = "LMSYS_RAY_CACHE"


def cache_directory() -> Path:
    """Returns where such files are kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("lmsys_ray", appauthor=False)


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Returns the directory `target`, filled by `make` where it is not there.

    It appears whole or not at all, and is made by one process of a machine however many ask.
    """
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
                try:
                    make(aside)
                    aside.rename(target)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    return target


def local_copy(name: str, files: Sequence[str] = ("*",)) -> Path:
    """Returns the local path of a file or a directory that a setting names: itself, or the copy of what a URL names.

    Of a directory in storage those files are fetched that lie directly in it and match one of the patterns `files`,
    once for each machine and each content: the store's etags tell contents apart. Raises `UsageError` where the URL
    leads nowhere, `RunError` where the storage cannot be reached.
    """
    path = path_of(name)
    if isinstance(path, Path):
        return path.expanduser()
    there = versions(path)
    is_file = list(there) == [path.name]
    wanted = {file: there[file] for file in there if is_file or any(fnmatch(file, pattern) for pattern in files)}
    if not wanted:
        raise UsageError(f"{name} does not exist, or holds no {', '.join(files)}; check the bucket and the name")
    digest = hashlib.sha256(json.dumps([str(path), wanted]).encode()).hexdigest()[:16]
    target = cache_directory() / "fetched" / f"{path.name}-{digest}"
    sources = {file: path if is_file else path / file for file in wanted}
    with reaching(path, "fetched"):
        made_once(target, lambda aside: _fetch(sources, {file: wanted[file]["bytes"] for file in wanted}, aside))
    return target / path.name if is_file else target


def _fetch(sources: dict[str, UPath], sizes: dict[str, int], folder: Path) -> None:
    copies = {file: folder / file for file in sources}
    storage = next(iter(sources.values())).fs
    storage.get([source.path for source in sources.values()], [str(copy) for copy in copies.values()])
    for file, copy in copies.items():
        if copy.stat().st_size != sizes[file]:
            raise RunError(f"{sources[file]} changed while it was fetched; start the same command again")
