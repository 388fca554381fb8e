"""The run directory, which is the only state of a run: what is done lies in it whole, what is missing is made.

settings.yaml                 the settings as they were resolved
manifest.json                 what the run was made from, and how its last start went
shards/00000.parquet          the ingested conversations, in order
rejects.jsonl                 one line for each input row that could not be used
scores/MEMBER/00000.parquet   each member's own probabilities
submission.csv                the blend, one line for each id
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.config import Settings
from lmsys_ray.errors import RunError
from lmsys_ray.readers import expand_inputs
from lmsys_ray.resources import locate

FORMAT = 1
"""Version of the run directory's layout."""

_HASHED_WHOLE = 256 << 20
"""Bytes up to which a file's whole content is its identity; of larger ones size, date and both ends are."""

_NOTES = {".md", ".png", ".csv", ".jsonl", ".lock"}
"""Endings of what lies beside a model and is no part of it: cards, pictures, figures."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


class RunDirectory:
    """Paths in a run directory, and what is there already."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.submission = self.path / "submission.csv"
        self.rejects = self.path / "rejects.jsonl"
        self._manifest = self.path / "manifest.json"

    def shard(self, number: int) -> Path:
        return self.path / "shards" / f"{number:05d}.parquet"

    def score(self, member: str, number: int) -> Path:
        return self.path / "scores" / member / f"{number:05d}.parquet"

    def missing(self, member: str, shards: int) -> list[int]:
        """Returns the numbers of the shards that `member` has not scored, out of 0 to `shards` - 1."""
        folder = self.path / "scores" / member
        done = set(os.listdir(folder)) if folder.is_dir() else set()
        return [number for number in range(shards) if self.score(member, number).name not in done]

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest, empty before the run's first start; raises `RunError` where it cannot be read."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise RunError(f"{self._manifest} cannot be read ({error}); choose another --output or remove it") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{self._manifest} was not written by this version of lmsys_ray; choose another --output")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with written_whole(self._manifest) as aside:
            aside.write_text(json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n", encoding="utf-8")

    def write_settings(self, text: str) -> None:
        with written_whole(self.path / "settings.yaml") as aside:
            aside.write_text(text, encoding="utf-8")


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a Parquet file that is there whole or not at all."""
    with written_whole(path) as aside:
        pq.write_table(table, aside, compression="zstd", compression_level=1)


def identity(settings: Settings) -> dict[str, Any]:
    """Returns what the rows and scores of a run depend on: the input's content, the settings of ingest, each member."""
    files = [{"path": path, **_content(Path(path))} for path in expand_inputs(settings.input)]
    ingest = {"input": files, **settings.model_dump(mode="json", include={"shard_rows", "limit", "cells"})}
    return {"ingest": ingest, "members": {name: _member_identity(m) for name, m in settings.members.items()}}


def _member_identity(member: Any) -> dict[str, Any]:
    values = member.model_dump(mode="json", exclude=member.CHANGEABLE)
    for key in ("model", "adapter", "artifacts"):
        path = Path(locate(values.get(key) or ""))
        if values.get(key) and path.exists():
            values[f"{key}_content"] = _content(path)["digest"]
    return values


def _content(path: Path) -> dict[str, Any]:
    """Returns the size in bytes and a digest of a file, or of the files below a directory that a model consists of."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix not in _NOTES)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}\0".encode())
        digest.update(_file_digest(file))
    return {"bytes": sum(file.stat().st_size for file in files), "digest": digest.hexdigest()[:16]}


def _file_digest(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _HASHED_WHOLE:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256(f"{size} {file.stat().st_mtime_ns}".encode())
        digest.update(stream.read(1 << 20))
        stream.seek(-(1 << 20), os.SEEK_END)
        digest.update(stream.read())
        return digest.digest()


def check_same_run(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raises `RunError` naming the first thing in which a run directory's identity differs from the present settings.

    A member that was added or left out is no difference: it is scored, or not blended.
    """
    members = {name: values for name, values in now["members"].items() if name in before["members"]}
    pairs = [("", before["ingest"], now["ingest"])]
    pairs += [(f"members.{name}.", before["members"][name], values) for name, values in members.items()]
    for prefix, old, new in pairs:
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                raise RunError(
                    f"{path} was made with {prefix}{key} = {_brief(old.get(key))}, now it is {_brief(new.get(key))}; "
                    "go on with the old settings or choose another --output"
                )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
