"""Reads errors of pydantic, so that every refusal of a value is one sentence."""

from typing import Any, NamedTuple

from pydantic import ValidationError

_PYDANTICS = "Input should be "


class Fault(NamedTuple):
    """A value that a model does not accept."""

    key: str
    """Its place, keys joined by dots; empty for a fault of the whole model."""
    value: Any
    accepted: str
    """What is accepted instead, in pydantic's or the validator's words."""

    @property
    def refusal(self) -> str:
        """The value, and what is accepted instead of it: the end of a sentence that begins with its place."""
        rest = self.accepted.removeprefix(_PYDANTICS)
        mark = ":" if rest == self.accepted else "; accepted:"
        return f"{self.value!r} is not accepted{mark} {rest.split(', unable to')[0]}"


def first_fault(error: ValidationError) -> Fault:
    """Returns the first fault that pydantic found."""
    first = error.errors()[0]
    return Fault(".".join(map(str, first["loc"])), first["input"], first["msg"].removeprefix("Value error, "))
