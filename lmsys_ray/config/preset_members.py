"""Settings of a preset that belong to its own models, and not to models that the user names instead."""

from pathlib import Path
from typing import Any

from lmsys_ray.config.base import present_kind
from lmsys_ray.storage.files import path_of
from lmsys_ray.storage.packaged import locate

_MODELS = ("kind", "model", "adapter", "artifacts")
"""Settings that name the model, for which a member's other settings were chosen."""

_KEPT = {"kind", "weight"}
"""Settings of a member that apply to any model."""

_AS_TRAINED = {"layers", "text", "template", "max_length", "truncation", "turns"}
"""Settings that belong to an adapter or a model: how its training read rows, as in its scoring.json."""


def drop_preset_settings(members: Any, preset: Any, given: Any) -> list[str]:
    """Removes from `members`, in place, the preset's settings for models that were replaced.

    `members` are the merged settings, `preset` and `given` those of the preset and of the layers above it. Settings in
    the scoring.json of a local adapter or model are added where they were not given. Returns a sentence for each that
    lost settings. Raises `UsageError` for a damaged scoring.json.
    """
    sentences = []
    for name, packaged in preset.items():
        values, own = members.get(name), given.get(name)
        if isinstance(values, dict) and isinstance(own, dict):
            replaced = [key for key in _MODELS if key in packaged and _differs(key, values, packaged)]
            dropped = _drop(values, packaged, own, replaced)
            noted = _take_noted(values, own) if replaced else []
            if dropped:
                sentences.append(_sentence(name, replaced, dropped, noted, None if "weight" in own else packaged))
    return sentences


def _differs(key: str, values: dict[str, Any], packaged: dict[str, Any]) -> bool:
    own, presets = values.get(key), packaged[key]
    return bool(present_kind(own) != present_kind(presets) if key == "kind" else own != presets)


def _drop(values: dict[str, Any], packaged: dict[str, Any], own: dict[str, Any], replaced: list[str]) -> list[str]:
    """Removes settings that come from the preset alone and belong to a replaced model; returns their keys."""
    if not replaced:
        return []
    belongs = _AS_TRAINED if replaced == ["adapter"] else packaged.keys() - _KEPT
    dropped = [key for key in packaged if key in belongs and key not in own]
    for key in dropped:
        del values[key]
    return dropped


def _take_noted(values: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Adds settings from the scoring.json of a local adapter or model that were not given; returns their keys."""
    model, adapter = values.get("model"), values.get("adapter")
    name = adapter or model
    path = path_of(locate(name)) if isinstance(name, str) else None
    if not isinstance(model, str) or not isinstance(path, Path) or not path.is_dir():
        return []
    # Imported here because it is slow to import and seldom needed.
    from lmsys_ray.checkpoints.sources import read_scoring

    noted = {key: value for key, value in read_scoring(model, adapter).items() if key in _AS_TRAINED and key not in own}
    values |= noted
    return list(noted)


def _sentence(
    name: str, replaced: list[str], dropped: list[str], noted: list[str], packaged: dict[str, Any] | None
) -> str:
    sentence = (
        f"members.{name}: the {replaced[0]} is another than the preset's, whose {', '.join(dropped)} are left out"
    )
    if noted:
        sentence += f"; {', '.join(noted)} as its scoring.json says"
    return sentence if packaged is None else f"{sentence}; the preset's weight of {packaged['weight']} stays"
