"""Options of the commands that make models, given as `--set key.path=value` and checked by a pydantic model."""

from collections.abc import Sequence
from typing import TypeVar

from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from lmsys_ray.config.layering import parse_overrides
from lmsys_ray.config.messages import nearest
from lmsys_ray.config.setting_texts import resolve_references
from lmsys_ray.errors import UsageError
from lmsys_ray.validation import first_fault

Options = TypeVar("Options", bound=BaseModel)


def parse_options(model: type[Options], sets: Sequence[str]) -> Options:
    """Returns the options of `model` with the values of `sets` in place of defaults.

    Raises `UsageError` for the first key that is unknown or whose value is not accepted.
    """
    try:
        return model.model_validate(resolve_references(OmegaConf.to_container(parse_overrides(sets))))
    except ValidationError as error:
        if (first := error.errors()[0])["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            key = str(first["loc"][0])
            raise UsageError(f"--set: {key} is not an option; {nearest(model, key)}") from None
        fault = first_fault(error)
        raise UsageError(f"--set: {fault.key} = {fault.refusal}") from None
