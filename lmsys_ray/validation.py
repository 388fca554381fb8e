"""Reads errors of pydantic, so that every refusal of a value is one sentence."""

from typing import Any, NamedTuple

from pydantic import ValidationError


class Fault(NamedTuple):
    """A value that a model does not accept."""

    key: str
    """Its place, keys joined by dots; empty for a fault of the whole model."""
    value: Any
    accepted: str
    """What is accepted instead, in pydantic's or the validator's words."""


def first_fault(error: ValidationError) -> Fault:
    """Returns the first fault that pydantic found."""
    first = error.errors()[0]
    return Fault(".".join(map(str, first["loc"])), first["input"], first["msg"].removeprefix("Value error, "))
