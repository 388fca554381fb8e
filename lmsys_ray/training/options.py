"""Options of the jobs that make models, given as `--set key.path=value` and checked by a pydantic model."""

from collections.abc import Sequence
from typing import TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from lmsys_ray.errors import UsageError

Options = TypeVar("Options", bound=BaseModel)


def options(model: type[Options], sets: Sequence[str]) -> Options:
    """Returns the options of `model` with `sets` laid over their defaults.

    Raises `UsageError` naming the first key that is unknown or whose value is not accepted.
    """
    for item in sets:
        if not item.partition("=")[0].strip() or "=" not in item:
            raise UsageError(f"--set: {item} is not of the form key.path=value")
    try:
        return model.model_validate(OmegaConf.to_container(OmegaConf.from_dotlist(list(sets)), resolve=True))
    except ValidationError as error:
        fault = error.errors()[0]
        key, accepted = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"--set: {key} = {fault['input']!r} is not accepted: {accepted}") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"--set: {' '.join(sets)} cannot be read ({str(error).splitlines()[0]})") from None
