"""What a run is made from: two starts belong to one run where this is the same."""

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from upath import UPath

from lmsys_ray.config import Settings, member_models
from lmsys_ray.errors import RunError
from lmsys_ray.readers import expand_inputs
from lmsys_ray.resources import locate
from lmsys_ray.shard_rows import shard_rows
from lmsys_ray.storage import AnyPath, exists, path_of, versions

_NOTES = {".md", ".png", ".csv", ".jsonl", ".lock"}
"""Endings of what lies beside a model and is no part of it: cards, pictures, figures."""


def identity(settings: Settings) -> dict[str, Any]:
    """Returns what the rows and scores of a run depend on: the input's content, the settings of ingest, each member."""
    files = [{"path": path, **content(path_of(path))} for path in expand_inputs(settings.input)]
    ingest = {"input": files, **settings.model_dump(mode="json", include={"limit", "cells"})}
    ingest["shard_rows"] = shard_rows(settings.shard_rows, files, settings.limit)
    return {"ingest": ingest, "members": {name: _member_identity(m) for name, m in settings.members.items()}}


def _member_identity(member: Any) -> dict[str, Any]:
    values = member.model_dump(mode="json", exclude=member.changeable())
    for key in ("model", "adapter", "artifacts"):
        path = path_of(locate(values.get(key) or ""))
        if values.get(key) and exists(path):
            values[f"{key}_content"] = content(path)["digest"]
    return values


def content(path: AnyPath) -> dict[str, Any]:
    """Returns the size in bytes and a digest of a file, or of the files below a directory that a model consists of.

    The digest is that of the content, in object storage that of the etags.
    """
    if not isinstance(path, Path):
        return _content_in_storage(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix not in _NOTES)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}\0".encode())
        digest.update(_file_digest(file))
    return {"bytes": sum(file.stat().st_size for file in files), "digest": digest.hexdigest()[:16]}


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
    """Reads the whole file: two fine-tuned copies of a model are of one size, and dates survive a copy."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def check_same_run(before: dict[str, Any], now: dict[str, Any], path: AnyPath) -> None:
    """Raises `RunError` naming the first thing in which a run directory's identity differs from the present settings.

    A member that was added or left out is no difference: it is scored, or not blended. A setting that the run's version
    did not have was what is its default now.
    """
    members = {name: values for name, values in now["members"].items() if name in before["members"]}
    pairs = [("", before["ingest"], now["ingest"])]
    for name, values in members.items():
        later = {key: value for key, value in _defaults(values["kind"]).items() if key in values}
        pairs.append((f"members.{name}.", later | before["members"][name], values))
    for prefix, old, new in pairs:
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                raise RunError(
                    f"{path} was made with {prefix}{key} = {_brief(old.get(key))}, now it is {_brief(new.get(key))}; "
                    "go on with the old settings or choose another --output"
                )


def _defaults(kind: str) -> dict[str, Any]:
    """Returns the settings of a kind of member that need not be given, as a manifest has them."""
    fields = member_models()[kind].model_fields
    return {name: field.default for name, field in fields.items() if not field.is_required()}


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
