"""The files that a start reads, as they were at its beginning, so that a replaced one is noticed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lmsys_ray.data.readers import expand_inputs
from lmsys_ray.scoring.fingerprint import named_files
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import AnyPath, exists, path_of
from lmsys_ray.storage.packaged import local
from lmsys_ray.storage.unchanged import FileStamp, Original


@dataclass(frozen=True)
class Originals:
    """The files of the input, in order, and those of each member."""

    input: tuple[Original, ...]
    members: Mapping[str, tuple[Original, ...]]


def look_at_files(settings: Settings) -> dict[str, FileStamp]:
    """Returns a look at each file that a run is made from, by path; to be taken before the fingerprint."""
    names = named_files(settings, settings.members)
    paths = [*map(path_of, expand_inputs(settings.input, settings.output)), *map(local, names)]
    return {str(path): FileStamp.at(path) for path in paths if exists(path)}


def find_originals(settings: Settings, now: Mapping[str, Any], looks: Mapping[str, FileStamp]) -> Originals:
    """Returns the files of `settings` and their fingerprint `now`, with the `looks` that were taken before it."""
    return Originals(
        tuple(
            Original("input", file["path"], file["digest"], _look(looks, path_of(file["path"])), place)
            for place, file in enumerate(now["ingest"]["input"])
        ),
        {name: tuple(_of_member(settings, name, now["members"][name], looks)) for name in now["members"]},
    )


def _of_member(
    settings: Settings, name: str, member: Mapping[str, Any], looks: Mapping[str, FileStamp]
) -> Iterator[Original]:
    for key, value in settings.members[name].named_artifacts().items():
        if f"{key}_content" in member:
            path = local(value)
            yield Original(f"members.{name}.{key}", str(path), member[f"{key}_content"], _look(looks, path))


def _look(looks: Mapping[str, FileStamp], path: AnyPath) -> FileStamp:
    return looks.get(str(path), FileStamp("", False))
