"""What each machine makes or fetches once and keeps: models from object storage, converted models."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from upath import UPath

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.storage import durable
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.file_systems import file_system
from lmsys_ray.storage.files import path_of, versions

CACHE_VARIABLE = "LMSYS_RAY_CACHE"


def cache_directory() -> Path:
    """Returns the directory of the cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("lmsys_ray", appauthor=False)


def built_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Returns the directory `target`, made by `make` if it does not exist.

    It appears as a whole or not at all, and is made by only one process of a machine.
    """
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                with durable.replaced_directory(target) as aside:
                    make(aside)
    return target


def local_copy(name: str, files: Sequence[str] = ("*",)) -> Path:
    """Returns the local path of a file or a directory that a setting names; what a URL names is copied.

    Of a directory in storage, the files directly in it that match one of the patterns `files` are fetched, once for
    each machine and content, by the store's etags. Raises `UsageError` where there is nothing at the URL, `RunError`
    where the storage cannot be reached.
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
    with storage_errors(path, "fetched"):
        built_once(target, lambda aside: _fetch(sources, {file: wanted[file]["bytes"] for file in wanted}, aside))
    return target / path.name if is_file else target


def _fetch(sources: dict[str, UPath], sizes: dict[str, int], folder: Path) -> None:
    copies = {file: folder / file for file in sources}
    storage = file_system(next(iter(sources.values())))
    storage.get([source.path for source in sources.values()], [str(copy) for copy in copies.values()])
    for file, copy in copies.items():
        if copy.stat().st_size != sizes[file]:
            raise RunError(f"{sources[file]} changed while it was fetched; start the same command again")
