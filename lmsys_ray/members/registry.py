"""The kinds of members: those of this package, and those that installed packages offer."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic_core import PydanticCustomError

from lmsys_ray.config.base import FORMER_KINDS, present_kind
from lmsys_ray.config.messages import key_needed, key_refused
from lmsys_ray.errors import UsageError
from lmsys_ray.members.protocol import LANES, MemberKind, MemberSettings

GROUP = "lmsys_ray.members"
"""The group of entry points by which installed packages offer kinds."""

_PACKAGED = {
    "classifier": "lmsys_ray.members.classifier.kind:KIND",
    "reward": "lmsys_ray.members.reward.kind:KIND",
    "judge": "lmsys_ray.members.judge.kind:KIND",
    "shared_encoder": "lmsys_ray.members.shared_encoder.kind:KIND",
    "lightgbm": "lmsys_ray.members.lightgbm.kind:KIND",
    "scores": "lmsys_ray.members.scores.kind:KIND",
}

_PARTS = ("lane", "preflight", "placement", "encoder", "scorer")
"""What a kind has beside its settings."""


@dataclass(frozen=True)
class Package:
    """The installed package that offers a kind."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def names() -> list[str]:
    """Returns the names of all kinds, those of this package first."""
    return [*_PACKAGED, *_offered()]


@cache
def kind_named(name: str) -> MemberKind[Any]:
    """Returns a kind; raises `UsageError` where a package offers it that cannot be loaded or lacks what a kind has."""
    module, _, attribute = _PACKAGED.get(name, "").partition(":")
    if module:
        return cast(MemberKind[Any], getattr(import_module(module), attribute))
    entry, *others = _offered()[name]
    if others:
        offers = " and by ".join(map(_origin, (entry, *others)))
        raise UsageError(f"kind {name} is offered by {offers}; remove all of them but one")
    try:
        kind = entry.load()
    except Exception as error:  # whatever a module of somebody else raises when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"kind {name}: {_origin(entry)} cannot be loaded ({reason}); mend or remove it") from error
    if faults := list(_faults(kind)):
        raise UsageError(f"kind {name}: {_origin(entry)} {'; '.join(faults)}; mend or remove it")
    return cast(MemberKind[Any], kind)


def kind_of(settings: MemberSettings) -> MemberKind[Any]:
    """Returns the kind of a member with these settings."""
    return kind_named(settings.kind)


def package_of(name: str) -> Package | None:
    """Returns the package that offers a kind; none for a kind of this package."""
    for entry in _offered().get(name, ()):
        if entry.dist:
            return Package(entry.dist.name, entry.dist.version)
    return None


def validated(values: object) -> MemberSettings:
    """Returns `values` as an instance of the settings class of their kind.

    Raises pydantic's errors, so that it can be the validator of a field.
    """
    if isinstance(values, MemberSettings):
        return values
    if not isinstance(values, dict):
        raise PydanticCustomError("member", "a mapping of settings, with a kind")
    if "kind" not in values:
        raise key_needed("kind", ", ".join(names()))
    name = present_name(values["kind"])
    if name is None:
        raise key_refused("kind", values["kind"], ", ".join(names()))
    return cast(MemberSettings, kind_named(name).settings.model_validate({**values, "kind": name}))


def class_named(kind: object) -> type[MemberSettings] | None:
    """Returns the settings class of a kind, by any of its names; None for an unknown kind."""
    name = present_name(kind)
    return None if name is None else kind_named(name).settings


def present_name(name: object) -> str | None:
    """Returns the present name of a kind; none where there is no such kind."""
    present = present_kind(name)
    there = isinstance(present, str) and (present in _PACKAGED or present in _offered())
    return cast(str, present) if there else None


@cache
def _offered() -> dict[str, list[EntryPoint]]:
    """Returns the kinds of installed packages by name; none of them takes the place of one of this package."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name not in _PACKAGED and entry.name not in FORMER_KINDS:
            found.setdefault(entry.name, []).append(entry)
    return found


def _faults(kind: object) -> Iterator[str]:
    """Yields what keeps an object of somebody else's from being a kind."""
    if isinstance(kind, type):
        yield "is a class where an instance of it is needed"
        return
    settings = getattr(kind, "settings", None)
    lacking = [part for part in _PARTS if not hasattr(kind, part)]
    if not (isinstance(settings, type) and issubclass(settings, MemberSettings)):
        lacking.insert(0, "settings (a subclass of lmsys_ray.members.protocol.MemberSettings)")
    else:
        yield from _setting_faults(settings)
    if lacking:
        yield f"lacks {', '.join(lacking)}"
    elif (lane := getattr(kind, "lane", None)) not in LANES:
        yield f"has lane = {lane!r}, accepted: {', '.join(LANES)}"


def _setting_faults(settings: type[MemberSettings]) -> Iterator[str]:
    fields = settings.model_fields
    if unknown := sorted({*settings.ARTIFACTS, *settings.MUTABLE} - fields.keys()):
        yield f"names {', '.join(unknown)} in ARTIFACTS or MUTABLE, which are no settings of its own"
    if reserved := [name for name in fields if name == "package" or name.endswith("_content")]:
        yield f"has a setting {reserved[0]}, a name that the manifest uses"


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} of the package {entry.dist.name if entry.dist else '?'}"
