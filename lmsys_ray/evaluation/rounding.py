"""Fitted values as settings files hold them."""

from collections.abc import Mapping

from lmsys_ray.ensemble.blend import normalise

_DIGITS = 6
"""Significant digits of fitted values: a small weight rounded to 0 may make the class of a row impossible."""


def rounded(value: float) -> float:
    """Returns a fitted value rounded to the significant digits that are kept."""
    return float(f"{value:.{_DIGITS}g}")


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Returns rounded weights, scaled to sum to 1 before and after."""
    return normalise({name: rounded(weight) for name, weight in normalise(weights).items()})
