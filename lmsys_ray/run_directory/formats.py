"""The format of a run directory, a number in its manifest, and how manifests of earlier formats become present ones.

`tests/run_directory/formats` holds what a format is; `CONTRIBUTING.md` says what to do when that changes.
"""

from collections.abc import Callable
from typing import Any

from lmsys_ray import __version__
from lmsys_ray.config.base import present_kind

FORMAT = 4
"""The present one; the first that a release writes."""

Values = dict[str, Any]
"""A manifest as its JSON says it, without the checksum."""


class FormatError(ValueError):
    """A manifest of a format that this version does not know; the text says which, and what to do."""


def check_format(values: Values) -> None:
    """Raises `FormatError` unless the format of a manifest is known; `values["format"]` is an integer."""
    found, here = values["format"], f"lmsys_ray {__version__}"
    if found > FORMAT:
        by = values.get("lmsys_ray")
        writer = f"lmsys_ray {by}" if isinstance(by, str) and by else "a later version of lmsys_ray"
        raise FormatError(
            f"is of format {found}, written by {writer}, while {here} knows formats up to {FORMAT}; continue with the "
            "version that wrote it or a later one, or choose another run directory"
        )
    if found != FORMAT and found not in _STEPS:
        raise FormatError(
            f"is of format {found}, while {here} knows formats {min(_STEPS)} to {FORMAT}; continue with the version "
            "that wrote it, or choose another run directory"
        )


def upgraded(values: Values) -> Values:
    """Returns a manifest of a known format as one of the present format."""
    while values["format"] != FORMAT:
        values = {**_STEPS[values["format"]](values), "format": values["format"] + 1}
    return values


def _from_2_to_3(values: Values) -> Values:
    """Format 3 labels shards and scores and has a checksum; a run that was begun without labels stays without."""
    return values


def _from_3_to_4(values: Values) -> Values:
    """Format 4 always says how records became rows and how large a cell may be, and has the present names of kinds."""
    found = dict(values)
    if isinstance(ingest := values.get("ingest"), dict):
        found["ingest"] = {"reading": {}, "names": [], "largest_cell": 64 << 20, **ingest}
    if isinstance(members := values.get("members"), dict):
        found["members"] = {name: _with_present_kind(member) for name, member in members.items()}
    return found


def _with_present_kind(member: Any) -> Any:
    is_named = isinstance(member, dict) and "kind" in member
    return {**member, "kind": present_kind(member["kind"])} if is_named else member


_STEPS: dict[int, Callable[[Values], Values]] = {2: _from_2_to_3, 3: _from_3_to_4}
"""From a format to the next one."""
