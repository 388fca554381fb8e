"""Checks settings, and refuses them in one sentence: the key, the value, and what is accepted."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from lmsys_ray.config.base import StrictModel, nested_model
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.errors import refuse_credentials

Model = TypeVar("Model", bound=BaseModel)

_NEEDED, _REFUSED = "key_needed", "key_refused"


def key_needed(key: str, accepted: str) -> PydanticCustomError:
    """Returns the error of a validator for a mapping without `key`."""
    return PydanticCustomError(_NEEDED, "{key} is needed", {"key": key, "accepted": accepted})


def key_refused(key: str, value: object, accepted: str) -> PydanticCustomError:
    """Returns the error of a validator for a mapping whose value of `key` is not accepted."""
    return PydanticCustomError(_REFUSED, "{accepted}", {"key": key, "value": value, "accepted": accepted})


def validate_settings(model: type[Model], values: dict[str, Any]) -> Model:
    """Returns `values` as an instance of `model`.

    Raises `UsageError` for the first fault, and for a credential in a URL, which the sentence does not repeat.
    """
    for key, text in _texts(values):
        refuse_credentials(text, f"settings: {key}: ")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_sentence(model, values, error.errors())) from None


def _texts(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the key and the text of each string among nested settings."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, key)
    elif isinstance(values, str):
        yield key, values


def _sentence(model: type[BaseModel], values: Any, faults: list[Any]) -> str:
    first, (key, owner) = faults[0], _place(model, values, faults[0]["loc"])
    if first["type"] == "missing":
        keys = [_place(model, values, fault["loc"])[0] for fault in faults if fault["type"] == "missing"]
        are, them = ("are", "them") if len(keys) > 1 else ("is", "it")
        return f"settings: {', '.join(keys)} {are} needed; give {them} in --config or by --set {key}=VALUE"
    if first["type"] == "extra_forbidden":
        return f"settings: {key} = {_shown(first['input'])} is not a setting; {nearest(owner, str(first['loc'][-1]))}"
    context = first.get("ctx", {})
    if first["type"] == _NEEDED:
        accepted = f"{context['accepted']} (or start from --preset default)"
        meant = _sibling(values, key)
        return f"settings: {key}.{context['key']} is needed{meant}; accepted: {accepted}"
    if first["type"] == _REFUSED:
        place = f"{key}.{context['key']}" if first["loc"] else context["key"]
        return f"settings: {place} = {_shown(context['value'])} is not accepted; accepted: {context['accepted']}"
    messages = dict.fromkeys(_accepted(f["msg"]) for f in faults if _place(model, values, f["loc"])[0] == key)
    return f"settings: {key} = {_shown(first['input'])} is not accepted; accepted: {' or '.join(messages)}"


def _place(model: type[BaseModel], values: Any, location: Sequence[int | str]) -> tuple[str, type[BaseModel]]:
    """Returns a location as a user writes it, and the settings class of its last key.

    Pydantic adds branches of unions and places in lists, which are not part of the key. The location is empty for a
    fault in several settings, which can only be those of the members.
    """
    parts: list[str] = []
    rest = list(location) or ["members"]
    while rest:
        field = str(rest.pop(0))
        parts.append(field)
        values = values.get(field) if isinstance(values, dict) else None
        info = model.model_fields.get(field)
        if info is None or not rest:
            break
        if nested := nested_model(info.annotation):
            model = nested
        elif get_origin(info.annotation) is dict:
            parts.append(str(rest.pop(0)))
            values = values.get(parts[-1]) if isinstance(values, dict) else None
            item = model.class_of_item(field, values) if issubclass(model, StrictModel) else None
            if item is None:
                break
            model = item
        else:
            break
    return ".".join(parts), model


def _sibling(values: Any, key: str) -> str:
    """Asks whether an entry of the same mapping was meant, such as the member whose name resembles that of `key`."""
    *above, name = key.split(".")
    for part in above:
        values = values.get(part) if isinstance(values, dict) else None
    others = [str(other) for other in values or () if str(other) != name]
    near = difflib.get_close_matches(name, others, 1)
    return f" (or did you mean {'.'.join([*above, near[0]])}?)" if near else ""


def _accepted(message: str) -> str:
    for prefix in ("Value error, ", "Input should be "):
        message = message.removeprefix(prefix)
    return message.split(", unable to")[0].replace("Field required", "three numbers")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(model: type[BaseModel], key: str) -> str:
    """Suggests the setting that an unknown key resembles, or lists all settings."""
    near = difflib.get_close_matches(key, model.model_fields, 1)
    return f"did you mean {near[0]}?" if near else f"accepted: {', '.join(model.model_fields)}"
