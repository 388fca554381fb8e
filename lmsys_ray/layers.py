"""Layers a run's settings: packaged preset, then config file, then flags; OmegaConf merges, pydantic checks."""

import difflib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from lmsys_ray.config import member_models
from lmsys_ray.errors import UsageError
from lmsys_ray.preset_members import without_foreign
from lmsys_ray.resources import DIRECTORY
from lmsys_ray.storage import path_of, read_bytes
from lmsys_ray.storage_errors import refuse_credentials

PRESETS = DIRECTORY / "presets"
DEFAULT_PRESET = "default"

Model = TypeVar("Model", bound=BaseModel)


def layered(
    preset: str | None,
    config: str | None,
    flags: dict[str, Any],
    sets: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Returns the merged settings, not yet checked.

    Without `preset`, the default one supplies what the other layers leave out as a whole: its members are taken where
    the config file names none, its input where no other is given. What a preset says of its own models does not hold
    for a model that another layer names in their place; `say` is told where that is so. Raises `UsageError` for a layer
    that cannot be read.
    """
    given = _config(config) if config else OmegaConf.create()
    base = _preset(preset or DEFAULT_PRESET)
    if not preset:
        base = OmegaConf.create({key: value for key, value in base.items() if key not in given})
    changed = OmegaConf.create({key: value for key, value in flags.items() if value is not None})
    layers = (given, changed, _overrides(sets))
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(base, *layers), resolve=True)
        above = OmegaConf.to_container(OmegaConf.merge(*layers))
    except OmegaConfBaseException as error:
        raise UsageError(f"settings: {_first_line(error)}") from None
    members = [_members(values) for values in (merged, OmegaConf.to_container(base), above)]
    for line in without_foreign(*members):
        say(line)
    return {str(key): value for key, value in merged.items()} if isinstance(merged, dict) else {}


def _members(values: Any) -> dict[str, Any]:
    members = values.get("members") if isinstance(values, dict) else None
    return members if isinstance(members, dict) else {}


def _preset(name: str) -> DictConfig:
    path = PRESETS / f"{name}.yaml"
    if not path.is_file() or Path(name).name != name:
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise UsageError(f"--preset: {name} is not packaged; accepted are {known}")
    return _config(str(path))


def _config(path: str) -> DictConfig:
    try:
        loaded = OmegaConf.load(io.StringIO(read_bytes(path_of(path)).decode()))
    except FileNotFoundError:
        raise UsageError(f"--config: {path} does not exist; give the path of a YAML file") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"--config: {path} is no readable YAML file: {_first_line(error)}") from None
    if not isinstance(loaded, DictConfig):
        raise UsageError(f"--config: {path} is no mapping of settings; write key: value lines")
    return loaded


def _overrides(sets: Sequence[str]) -> DictConfig:
    for item in sets:
        if "=" not in item or not item.split("=", 1)[0].strip():
            raise UsageError(f"--set: {item} is not of the form key.path=value")
    try:
        return OmegaConf.from_dotlist(list(sets))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"--set: {' '.join(sets)} cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def checked(model: type[Model], values: dict[str, Any]) -> Model:
    """Returns `values` as the settings object `model`.

    Raises `UsageError` with one line for the first fault: the key, the value, and what is accepted; of a credential in
    a URL the key alone.
    """
    for key, text in _texts(values):
        refuse_credentials(text, f"settings: {key}: ")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_sentence(model, error.errors())) from None


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the texts among nested settings with their keys."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, key)
    elif isinstance(values, str):
        yield key, values


def _sentence(model: type[BaseModel], faults: list[Any]) -> str:
    first, key = faults[0], _key(faults[0]["loc"])
    if first["type"] == "missing":
        return f"settings: {key} is needed; give it in --config or by --set {key}=VALUE"
    if first["type"] == "extra_forbidden":
        return f"settings: {key} = {_shown(first['input'])} is no setting; {_nearest(model, first['loc'])}"
    if first["type"] == "union_tag_not_found":
        return (
            f"settings: {key}.kind is needed; accepted: {', '.join(member_models())} (or start from --preset default)"
        )
    if first["type"] == "union_tag_invalid":
        kind = first["input"]["kind"]
        return f"settings: {key}.kind = {_shown(kind)} is not accepted; accepted: {', '.join(member_models())}"
    messages = dict.fromkeys(_accepted(fault["msg"]) for fault in faults if _key(fault["loc"]) == key)
    return f"settings: {key} = {_shown(first['input'])} is not accepted; accepted: {' or '.join(messages)}"


def _key(location: tuple[Any, ...]) -> str:
    """The key as a user writes it: pydantic adds the branches of unions, which are no part of it."""
    if not location:
        return "members"
    parts = [*location[:2], *location[3:4]] if location[0] == "members" else location[:1]
    return ".".join(str(part) for part in parts)


def _accepted(message: str) -> str:
    for prefix in ("Value error, ", "Input should be "):
        message = message.removeprefix(prefix)
    return message.split(", unable to")[0].replace("Field required", "three numbers")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(model: type[BaseModel], location: tuple[Any, ...]) -> str:
    """Suggests the setting that an unknown key resembles, or lists those there are."""
    fields = member_models()[location[2]].model_fields if location[0] == "members" else model.model_fields
    near = difflib.get_close_matches(str(location[-1]), fields, 1)
    return f"did you mean {near[0]}?" if near else f"accepted: {', '.join(fields)}"
