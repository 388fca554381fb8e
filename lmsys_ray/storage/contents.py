"""Digests by which files and models are identified."""

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from upath import UPath

from lmsys_ray.errors import RunError
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import AnyPath, versions

_NOTES = {".md", ".png", ".csv", ".jsonl", ".lock"}
"""Endings of files beside a model that are not part of it: cards, pictures, figures."""


_BLOCK = 1 << 20


def content(path: AnyPath) -> dict[str, Any]:
    """Returns the size in bytes and a digest of a file, or of the files of a model below a directory.

    The digest is of the content, or in object storage of the etags.
    """
    if not isinstance(path, Path):
        return _content_in_storage(path)
    digest = hashlib.sha256()
    with storage_errors(path, "read"):
        files = files_of(path)
        for file in files:
            digest.update(f"{file.relative_to(path)}\0".encode())
            digest.update(_file_digest(file))
        return {"bytes": sum(file.stat().st_size for file in files), "digest": digest.hexdigest()[:16]}


def begins_as(path: Path, size: int, digest: str) -> bool:
    """Returns whether the first `size` bytes of a local file have the digest that `content` gives of them."""
    beginning = hashlib.sha256()
    with storage_errors(path, "read"), path.open("rb") as stream:
        while size and (data := stream.read(min(size, _BLOCK))):
            beginning.update(data)
            size -= len(data)
    return not size and hashlib.sha256(b".\0" + beginning.digest()).hexdigest()[:16] == digest


def files_of(path: Path) -> list[Path]:
    """Returns the file itself, or the files of a model below a directory."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.suffix not in _NOTES)


def _content_in_storage(path: UPath) -> dict[str, Any]:
    found = versions(path)
    if not found:
        raise RunError(f"{path} is gone, or holds no file; put it back and start the same command again")
    if list(found) == [path.name]:
        return {"bytes": found[path.name]["bytes"], "digest": f"etag {found[path.name]['etag']}"}
    parts = {name: part for name, part in found.items() if PurePath(name).suffix not in _NOTES}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return {"bytes": sum(part["bytes"] for part in parts.values()), "digest": f"of etags {digest}"}


def _file_digest(file: Path) -> bytes:
    """Returns a digest of the whole file: fine-tuned copies of a model have the same size, and dates survive a copy."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
