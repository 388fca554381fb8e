"""Types and the base class of all settings."""

from __future__ import annotations

import os
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PathName = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, URL or other name of files; `~` is the home directory of the user who starts the job."""

FORMER_KINDS = {"llama": "classifier"}
"""Former names of kinds of members, which settings may use for ever, and the present ones."""


def present_kind(name: Any) -> Any:
    """Returns the present name of a kind of members; what is no former name is returned as it is."""
    return FORMER_KINDS.get(name, name) if isinstance(name, str) else name


Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0, le=10**12)]


class StrictModel(BaseModel):
    """Refuses unknown keys, values of another type, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def class_of_item(cls, field: str, value: Any) -> type[BaseModel] | None:
        """Returns the settings class of `value`, an item of the mapping `field`; None if it has none."""
        return None


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """Returns the settings class that the type of a field is, or is beside None; None for other types."""
    parts = [part for part in get_args(annotation) or [annotation] if part is not NoneType]
    found = parts[0] if len(parts) == 1 else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None
