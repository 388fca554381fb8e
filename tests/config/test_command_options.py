"""Options of the commands that make models: a typo gets the option that it resembles."""

import pytest

from lmsys_ray.config.command_options import parse_options
from lmsys_ray.errors import UsageError
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions


def test_a_typo_is_told_with_the_option_that_it_resembles() -> None:
    name = next(iter(LightGBMOptions.model_fields))
    with pytest.raises(UsageError, match=f"^--set: {name}x is not an option; did you mean {name}\\?$"):
        parse_options(LightGBMOptions, [f"{name}x=1"])
    with pytest.raises(UsageError, match=f"^--set: zzz is not an option; accepted: .*{name}"):
        parse_options(LightGBMOptions, ["zzz=1"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("boosters=0", "boosters = 0 is not accepted; accepted: greater than 0"),
        ("boosters=two", "boosters = 'two' is not accepted; accepted: a valid integer"),
    ],
)
def test_a_value_is_told_with_what_is_accepted(given: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^--set: {sentence}$"):
        parse_options(LightGBMOptions, [given])
