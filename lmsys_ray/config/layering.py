"""Layers the settings of a run: packaged preset, config files, then flags. OmegaConf merges, pydantic checks."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmsys_ray.config.preset_members import drop_preset_settings
from lmsys_ray.config.setting_texts import check_references, check_yaml, resolve_references
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import path_of, read_bytes
from lmsys_ray.storage.packaged import DIRECTORY

PRESETS = DIRECTORY / "presets"
DEFAULT_PRESET = "default"


def layer_settings(
    preset: str | None,
    configs: Sequence[str],
    flags: dict[str, Any],
    sets: Sequence[str],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Returns the merged settings, not yet checked; of the files `configs`, a later one wins.

    Without `preset`, the default one supplies top-level settings that they lack: all members, the input.
    What a preset says about its own models is dropped for a model that another layer names instead, and `say` reports
    that. A member that is null is left out. Raises `UsageError` for a layer that cannot be read.
    """
    given = _merged(*(_config(path) for path in configs))
    base = _preset(preset or DEFAULT_PRESET)
    if not preset:
        base = OmegaConf.create({key: value for key, value in base.items() if key not in given})
    check_references(flags, "flags")
    changed = OmegaConf.create({key: value for key, value in flags.items() if value is not None})
    layers = (given, changed, parse_overrides(sets))
    try:
        merged = resolve_references(OmegaConf.to_container(_merged(base, *layers)))
        above = OmegaConf.to_container(_merged(*layers))
    except (OmegaConfBaseException, RecursionError) as error:
        raise UsageError(f"settings: {_first_line(error)}") from None
    left_out = [name for name, member in _members(merged).items() if member is None]
    for name in left_out:
        del merged["members"][name]
    members = [_members(values) for values in (merged, OmegaConf.to_container(base), above)]
    for line in drop_preset_settings(*members):
        say(line)
    return merged


def _merged(*layers: DictConfig) -> DictConfig:
    try:
        return cast(DictConfig, OmegaConf.merge(OmegaConf.create(), *layers))
    except TypeError:  # of OmegaConf, which does not name the setting
        raise UsageError(
            "settings: one of preset, --config and --set has a list where another has a mapping; write both alike"
        ) from None
    except OmegaConfBaseException as error:
        raise UsageError(f"settings: {_first_line(error)}") from None


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
        text = read_bytes(path_of(os.path.expanduser(path))).decode()
        check_yaml(text)
        # OmegaConf reads a text that is no mapping a second time, as YAML, and fails at what that may hold.
        loaded = OmegaConf.load(io.StringIO(text)) if _maps(text) else None
    except FileNotFoundError:
        raise UsageError(f"--config: {path} does not exist; give the path of a YAML file") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise UsageError(f"--config: {path} is not a readable YAML file: {_first_line(error)}") from None
    if not isinstance(loaded, DictConfig):
        raise UsageError(f"--config: {path} is not a mapping of settings; write key: value lines")
    check_references(OmegaConf.to_container(loaded), f"--config: {path}")
    return loaded


def _maps(text: str) -> bool:
    """Returns whether YAML is a mapping, or empty."""
    nodes = (event for event in yaml.parse(text, Loader=yaml.SafeLoader) if isinstance(event, yaml.NodeEvent))
    return isinstance(next(nodes, None), yaml.MappingStartEvent | None)


def parse_overrides(sets: Sequence[str]) -> DictConfig:
    """Returns the settings in flags `--set key.path=value`, with references unresolved.

    Raises `UsageError` for a flag that cannot be read, or refers to anything but settings.
    """
    for item in sets:
        if "=" not in item or not item.split("=", 1)[0].strip():
            raise UsageError(f"--set: {item} is not of the form key.path=value")
    try:
        for item in sets:
            check_yaml(item.split("=", 1)[1])
        found = OmegaConf.from_dotlist(["=".join(map(str.strip, item.split("=", 1))) for item in sets])
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"--set: {' '.join(sets)[:200]} cannot be read: {_first_line(error)}") from None
    check_references(OmegaConf.to_container(found), "--set")
    return found


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
