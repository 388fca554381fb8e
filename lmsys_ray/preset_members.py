"""What a preset says of its own models, and must not be said of a model that the user names in their place."""

from pathlib import Path
from typing import Any

from lmsys_ray.resources import locate
from lmsys_ray.storage import path_of

_MODELS = ("kind", "model", "adapter", "artifacts")
"""Settings that name what a member's other settings were chosen for."""

_KEPT = {"kind", "weight"}
"""Settings of a member that hold for any model."""

_AS_TRAINED = {"layers", "text", "template", "max_length", "truncation"}
"""Settings that belong to an adapter: how rows were read when it was trained, as its scoring.json notes."""


def without_foreign(members: Any, preset: Any, given: Any) -> list[str]:
    """Takes from `members`, in place, what the preset says of its own models where others stand in their place.

    `members` are the merged settings, `preset` and `given` those of the preset and of the layers above it. What the
    scoring.json of a local adapter notes comes in where it was not given. A preset that names no model loses nothing.
    Returns a sentence for each member that lost something.

    Raises `UsageError` for a scoring.json that is damaged.
    """
    sentences = []
    for name, packaged in preset.items():
        values, own = members.get(name), given.get(name)
        if isinstance(values, dict) and isinstance(own, dict):
            replaced = [key for key in _MODELS if key in packaged and values.get(key) != packaged[key]]
            dropped = _drop(values, packaged, own, replaced)
            noted = _take_noted(values, own) if replaced else []
            if dropped:
                sentences.append(_sentence(name, replaced, dropped, noted, None if "weight" in own else packaged))
    return sentences


def _drop(values: dict[str, Any], packaged: dict[str, Any], own: dict[str, Any], replaced: list[str]) -> list[str]:
    """Removes what the preset alone says of the models that were replaced; returns the keys."""
    if not replaced:
        return []
    belongs = _AS_TRAINED if replaced == ["adapter"] else packaged.keys() - _KEPT
    dropped = [key for key in packaged if key in belongs and key not in own]
    for key in dropped:
        del values[key]
    return dropped


def _take_noted(values: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Adds what lies beside a local adapter of how it reads rows and was not given; returns the keys."""
    adapter = values.get("adapter")
    path = path_of(locate(adapter)) if isinstance(adapter, str) else None
    if not adapter or not isinstance(path, Path) or not path.is_dir():
        return []
    # Imported here since it takes a while, and is seldom needed.
    from lmsys_ray.members.llama.sources import read_scoring

    noted = {key: value for key, value in read_scoring(adapter).items() if key in _AS_TRAINED and key not in own}
    values |= noted
    return list(noted)


def _sentence(
    name: str, replaced: list[str], dropped: list[str], noted: list[str], packaged: dict[str, Any] | None
) -> str:
    sentence = (
        f"members.{name}: the {replaced[0]} is another than the preset's, whose {', '.join(dropped)} are left out"
    )
    if noted:
        sentence += f"; {', '.join(noted)} as the adapter's scoring.json says"
    return sentence if packaged is None else f"{sentence}; the preset's weight of {packaged['weight']} stays"
