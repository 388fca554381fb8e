"""The fingerprint of a run: the input, settings and models that it is made from.

Two starts belong to one run if their fingerprints are the same. Digests are short hashes of a fingerprint.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from lmsys_ray.data.readers import expand_inputs
from lmsys_ray.data.readers.partitions import partition_values
from lmsys_ray.data.schemas.reading import row_names
from lmsys_ray.errors import UsageError
from lmsys_ray.ingest.shard_size import shard_rows
from lmsys_ray.members.protocol import MemberSettings
from lmsys_ray.members.registry import class_named, package_of
from lmsys_ray.run_directory.manifest import Digests
from lmsys_ray.scoring.reading import recognised
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.contents import content
from lmsys_ray.storage.files import AnyPath, exists, path_of
from lmsys_ray.storage.packaged import local

_IN_DIGESTS = {"classifier": "llama"}
"""The names in digests of kinds that were renamed, so that the digests of older runs stay the same."""

_EARLIER: dict[str, Any] = {"reading": {}, "names": [], "partitions": []}
"""What the ingest of every run was like before there were schemas and partitions."""

_MAY_GROW = {
    "limit": "a run can be extended to more rows, but not cut to fewer; ",
    "input": "a run can be extended by files that come after those of before, and by rows at the end of a last file "
    "that is local CSV or JSON Lines, not compressed; ",
}
"""What is said where an input or a limit differs otherwise than an extension's."""


def fingerprint(settings: Settings) -> dict[str, Any]:
    """Returns what rows and scores depend on: the content of the input, the settings of ingest, and each member."""
    files = [{"path": path, **content(path_of(path))} for path in expand_inputs(settings.input, settings.output)]
    ingest = {"input": files, **settings.model_dump(mode="json", include={"limit", "cells", "largest_cell"})}
    ingest["shard_rows"] = shard_rows(settings.shard_rows, files, settings.limit)
    paths = [file["path"] for file in files]
    reading = recognised(settings, paths).reading
    ingest["reading"] = reading.as_dict()
    named = [partition_values(path) for path in paths]
    named = [{name: values[name] for name in reading.asked(list(values))} for values in named]
    ingest["partitions"] = named if any(named) else []
    ingest["names"] = row_names(paths) if reading.id == "row" else []
    return {"ingest": ingest, "members": {name: _member_fingerprint(m) for name, m in settings.members.items()}}


def named_files(settings: Settings, members: Iterable[str]) -> Iterator[str]:
    """Yields the files and hub models that the settings of `members` name."""
    for name in members:
        yield from settings.members[name].named_artifacts().values()


def _member_fingerprint(member: MemberSettings) -> dict[str, Any]:
    values = member.model_dump(mode="json", exclude=set(member.mutable()))
    for key, name in member.named_artifacts().items():
        path = local(name)
        if exists(path):
            values[f"{key}_content"] = content(path)["digest"]
    if package := package_of(member.kind):
        values["package"] = str(package)
    return values


def digests(now: Mapping[str, Any]) -> Digests:
    """Returns the digests of a `fingerprint`: of contents, not paths, and of settings that differ from their defaults.

    A setting that a later version adds therefore changes no digest.
    """
    ingest = dict(now["ingest"])
    contents = [[file["bytes"], file["digest"]] for file in ingest.pop("input")]
    ingest = _without_defaults(ingest, {**_defaults_of(Settings), **_EARLIER}) | {"input": contents}
    return Digests(ingest=_digest(ingest), members={name: member_digest(m) for name, m in now["members"].items()})


def extension_digest(before: str, shards: int, lines: int, now: Mapping[str, Any]) -> str:
    """Returns the digest of what a run with the digest `before` makes after so many shards and rows, as it is `now`."""
    return _digest({"before": before, "shards": shards, "lines": lines, "now": digests(now).ingest})


def member_digest(member: Mapping[str, Any]) -> str:
    """Returns the digest of a member's part of a `fingerprint`."""
    named = {key for key in member if f"{key}_content" in member}
    values = {key: value for key, value in member.items() if key not in named}
    values["kind"] = _IN_DIGESTS.get(values["kind"], values["kind"])
    return _digest(_without_defaults(values, _defaults(member["kind"])))


def _without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def check_same_run(before: dict[str, Any], now: dict[str, Any], path: AnyPath) -> None:
    """Raises `UsageError`, which names the first difference, unless the fingerprints are of the same run.

    Members may be added or left out. A setting of a member that the run's version did not have counts as its present
    default. Files are the same if their contents are, whatever their paths.
    """
    members = {name: values for name, values in now["members"].items() if name in before["members"]}
    pairs = [("", _EARLIER | before["ingest"], now["ingest"])]
    for name, values in members.items():
        later = {key: value for key, value in _defaults(values["kind"]).items() if key in values}
        pairs.append((f"members.{name}.", later | before["members"][name], values))
    for prefix, old, new in pairs:
        for key in [*old, *(key for key in new if key not in old)]:
            same = _same_files(old[key], new[key]) if not prefix and key == "input" else _is_same(key, old, new)
            if not same:
                raise UsageError(
                    f"{path} was made with {prefix}{key} = {_brief(old.get(key))}, now it is {_brief(new.get(key))}; "
                    f"{'' if prefix else _MAY_GROW.get(key, '')}continue with the old settings or choose another "
                    "--output"
                )


def _is_same(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if old.get(f"{key}_content") == new.get(f"{key}_content") is not None:
        return True
    if key.endswith("_content") and key not in old and str(old.get(key.removesuffix("_content"))).startswith("~"):
        return True  # The version that began the run did not record this content.
    return bool(old.get(key) == new.get(key))


def _same_files(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> bool:
    return contents(old) == contents(new)


def contents(files: Iterable[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Returns the bytes and the digest of each file of an input, which tell whether it is the same."""
    return [(file["bytes"], file["digest"]) for file in files]


def _defaults(kind: str) -> dict[str, Any]:
    """Returns the defaults of a kind's settings, as in a manifest; empty for an unknown kind."""
    model = class_named(kind)
    return {} if model is None else _defaults_of(model)


def _defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_construct().model_dump(mode="json")


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
