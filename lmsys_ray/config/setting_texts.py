"""Bounds the depth and size of YAML, and resolves `${...}`, which may refer to other settings only.

OmegaConf alone would also insert the environment into settings (`${oc.env:NAME}`), and so into URLs and saved files.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from lmsys_ray.errors import UsageError

_DEEPEST = 50
_MOST_NODES = 20_000
_MOST_BYTES = 1 << 20
_MOST_INSERTED = 1 << 20
"""Characters that references may insert into settings in all."""

_REFERENCE = re.compile(r"(\\*)\$\{([^{}]*)(\}?)")
_NAME = re.compile(r"\s*(\.*)([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+|\[[A-Za-z0-9_-]+\])*)\s*")


def check_yaml(text: str) -> None:
    """Raises `ValueError` for YAML that is too deep or too large, with each alias counted as what it stands for.

    Raises `yaml.YAMLError` for text that is not YAML.
    """
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it has {len(text)} characters, more than settings ever need")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)  # 1 for an anchor that is still open, which YAML refuses itself
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
        if len(open_nodes) > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        if total > _MOST_NODES:
            raise ValueError(f"its anchors and values make more than {_MOST_NODES} values")


def check_references(values: Any, place: str) -> None:
    """Raises `UsageError` where a text among nested `values` refers to anything but a setting.

    `place` says where they come from, such as `--config: run.yaml`.
    """
    for path, text in _texts(values):
        for found in _references(text):
            if not found[3] or not _NAME.fullmatch(found[2]):
                shown = text[found.start(2) - 2 :][:60]
                why = (
                    "settings take nothing from the environment nor from other resolvers"
                    if ":" in found[2] or ":" in shown
                    else "it names no setting"
                )
                raise UsageError(
                    f"{place}: {_dotted(path)} holds {shown!r}, but {why}; write the value itself, or a setting's name "
                    "such as ${output}"
                )


def resolve_references(values: Any) -> dict[str, Any]:
    """Returns nested settings with each `${name}` replaced by its value; `${.name}` is relative to its own place.

    Raises `UsageError` for a name that is not a setting, or whose value contains a reference itself.
    """
    inserted = 0

    def replaced(value: Any, path: tuple[Any, ...]) -> Any:
        nonlocal inserted
        if isinstance(value, dict):
            return {key: replaced(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [replaced(each, (*path, place)) for place, each in enumerate(value)]
        if not isinstance(value, str) or not (found := list(_references(value))):
            return value.replace("\\${", "${") if isinstance(value, str) else value
        targets = [replaced(_target(values, path, reference[2]), path) for reference in found]
        inserted += sum(len(str(target)) for target in targets)
        if inserted > _MOST_INSERTED:
            raise UsageError(f"settings: {_dotted(path)} and other references become too long; write the values")
        if len(found) == 1 and found[0][0] == value:
            return targets[0]
        texts = iter(targets)
        return _REFERENCE.sub(lambda each: _in_text(each, texts), value)

    return {key: replaced(value, (key,)) for key, value in values.items()}


def _references(text: str) -> Iterator[re.Match[str]]:
    """Yields the references in a text; after an odd number of backslashes, `${` is text."""
    return (found for found in _REFERENCE.finditer(text) if len(found[1]) % 2 == 0)


def _in_text(found: re.Match[str], targets: Iterator[Any]) -> str:
    backslashes = found[1][: len(found[1]) // 2]
    return backslashes + (found[0][len(found[1]) :] if len(found[1]) % 2 else str(next(targets)))


def _target(values: Any, path: tuple[Any, ...], reference: str) -> Any:
    found = _NAME.fullmatch(reference)
    if found is None:
        raise UsageError(
            f"settings: {_dotted(path)} refers to {reference[:60]!r}, which is not a setting; write the value"
        )
    keys = re.findall(r"[A-Za-z0-9_-]+", found[2])
    for key in [*(path[: -len(found[1])] if found[1] else ()), *keys]:
        inside = isinstance(values, dict) and key in values
        if isinstance(values, list) and str(key).isdigit() and int(key) < len(values):
            values = values[int(key)]
        elif inside:
            values = values[key]
        else:
            raise UsageError(
                f"settings: {_dotted(path)} refers to {reference.strip()}, which is not set; set it, or write the value"
            )
    if any(True for _, text in _texts(values) for _ in _references(text)):
        raise UsageError(
            f"settings: {_dotted(path)} refers to {reference.strip()}, which refers to another; write the value itself"
        )
    return values


def _texts(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _texts(value, (*path, key))
    elif isinstance(values, list):
        for place, value in enumerate(values):
            yield from _texts(value, (*path, place))
    elif isinstance(values, str):
        yield path, values


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))[:80] or "a value"
