"""How far a run is, read from its directory alone, whatever works in it or does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from lmsys_ray.errors import UsageError
from lmsys_ray.moments import as_text, moment
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import Holder
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.storage.files import AnyPath, Listed, exists, listing, read_bytes

SILENT_SECONDS = 60.0
"""A start on another machine that has not renewed its lock for so long may be dead."""


@dataclass(frozen=True)
class MemberStatus:
    """How far a member is."""

    scored: int
    """Shards."""
    bytes_scored: int
    """The bytes of these shards of conversations, which stand for their work."""
    seconds_left: float | None
    """By the bytes scored since the start began; None where too little is known, or nothing works."""


@dataclass(frozen=True)
class Status:
    """How far a run is."""

    run: str
    state: str
    """`running`, `silent`, `died`, `stopped`, `failed`, `done` or `unfinished`."""
    about: str
    """Who works or worked in it, and what ended that."""
    starts: int
    began: str | None
    """When the last start began, UTC."""
    shards: int
    """Shards of conversations so far."""
    ingested: bool
    """Whether that is all of them."""
    bytes: int
    """Of the shards."""
    rows: int | None
    rejects: int | None
    members: Mapping[str, MemberStatus] = field(default_factory=dict)
    submission: str | None = None
    """When the submission was written, UTC."""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)


def read_status(run: RunDirectory, now: float) -> Status:
    """Returns how far a run is at `now`, in seconds since 1970; raises `UsageError` for what is no run directory."""
    manifest = run.read_manifest()
    if manifest is None:
        raise UsageError(
            f"--run: {run.path} is not a run directory, or nothing was started in it; name one of score.py"
        )
    shards = run.listed_shards()
    ingested = manifest.ingested
    began = manifest.starts[-1].get("began") if manifest.starts else None
    state, about = _state(run, manifest, now)
    since = moment(began) if state == "running" else None
    members = {name: _member(run, name, shards, since, now) for name in _blended(run, manifest)}
    return Status(
        run=str(run.path),
        state=state,
        about=about,
        starts=len(manifest.starts),
        began=began,
        shards=len(shards),
        ingested=ingested is not None,
        bytes=sum(shard.bytes for shard in shards.values()),
        rows=ingested.rows if ingested else None,
        rejects=ingested.rejects if ingested else None,
        members=members,
        submission=_written(run.path, run.submission.name),
    )


def _member(
    run: RunDirectory, name: str, shards: Mapping[int, Listed], since: float | None, now: float
) -> MemberStatus:
    scores = {number: found for number, found in run.listed_scores(name).items() if number in shards}
    done = sum(shards[number].bytes for number in scores)
    left = None
    if since is not None:
        new = sorted((found.modified, shards[n].bytes) for n, found in scores.items() if found.modified >= since)
        # What the first one took is unknown, since its work began before it was written.
        work, seconds = sum(size for _, size in new[1:]), now - new[0][0] if new else 0.0
        left = (sum(shard.bytes for shard in shards.values()) - done) / work * seconds if work and seconds > 0 else None
    return MemberStatus(len(scores), done, left)


def _state(run: RunDirectory, manifest: Manifest, now: float) -> tuple[str, str]:
    holder = Holder.parse(run.read_lock())
    last = manifest.starts[-1] if manifest.starts else {}
    if holder is not None:
        silence = max(0.0, now - holder.beat)
        if holder.process.is_local():
            if holder.process.is_alive():
                return "running", f"{holder.process} since {holder.since}"
            return "died", f"{holder.process}, at work since {holder.since}, is gone"
        sign = f"{holder.process} since {holder.since}, last sign of life {silence:,.0f} s ago"
        return ("running" if silence < SILENT_SECONDS else "silent"), sign
    code, error = last.get("exit"), last.get("error")
    if code == 0:
        return "done", ""
    if code is None:
        return "died", f"process {last.get('pid')} on {last.get('host')}" if last else ""
    return ("stopped" if code > 128 else "failed"), str(error or f"exit code {code}")


def _blended(run: RunDirectory, manifest: Manifest) -> list[str]:
    """Returns the members that the last start scores: those of weight above 0, as its settings say."""
    path = run.path / "settings.yaml"
    if not exists(path):
        return list(manifest.members)
    try:
        values = yaml.safe_load(read_bytes(path))
    except yaml.YAMLError:
        return list(manifest.members)
    members = values.get("members") if isinstance(values, dict) else None
    named = members if isinstance(members, dict) else {name: {} for name in manifest.members}
    return [name for name in named if not isinstance(named[name], dict) or named[name].get("weight", 1) != 0]


def _written(folder: AnyPath, name: str) -> str | None:
    found = listing(folder).get(name)
    return None if found is None else as_text(found.modified)
