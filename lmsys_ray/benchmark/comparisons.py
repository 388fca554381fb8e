"""The figures of two sides that must give the same outputs, as ratios: the latter against the former."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from lmsys_ray.benchmark.benchmark import Measurements


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same rows; shares and ratios are medians over the rounds, computed for each round."""

    rows: int
    tokens: int
    """Tokens of the rows, the same on both sides."""
    computed: dict[str, int]
    """How many tokens each side computed, padding included."""
    rows_per_second: dict[str, float]
    tokens_saved: float
    """The share of the former side's computed tokens that the latter does not compute."""
    time_saved: float
    """The share of the former side's seconds that the latter does not take."""
    ratio: float
    """Rows per second of the latter relative to the former."""
    difference: float
    """The largest difference between outputs of both sides."""
    allowed: float
    """The largest that is rounding: what the check of a model against transformers allows."""
    seconds: dict[str, list[float]]

    @property
    def equal(self) -> bool:
        """Whether both sides give the same outputs but for rounding."""
        return self.difference <= self.allowed

    @property
    def time_per_token(self) -> float | None:
        """The share of time saved relative to that of tokens: 1 where each token saved saves its time."""
        return self.time_saved / self.tokens_saved if self.tokens_saved else None


def comparison(found: Measurements, sides: Iterable[str], sequences: int = 1) -> Comparison | None:
    """Returns the figures of two sides; None where either did not complete.

    A row has so many `sequences`, each with outputs of its own.
    """
    names = list(sides)
    if not all(found.runs.get(name) for name in names) or found.failures.keys() & set(names):
        return None
    former, latter = (found.runs[name] for name in names)
    last = [former[-1].answer, latter[-1].answer]
    outputs = [np.array(answer["outputs"]) for answer in last]
    rows = len(outputs[0]) // sequences
    seconds = {name: [run.seconds for run in found.runs[name]] for name in names}
    rounds = list(zip(*seconds.values(), strict=True))
    computed = [answer["computed"] for answer in last]
    return Comparison(
        rows=rows,
        tokens=last[0]["tokens"],
        computed=dict(zip(names, computed, strict=True)),
        rows_per_second={name: rows / median(each) for name, each in seconds.items()},
        tokens_saved=1 - computed[1] / computed[0],
        time_saved=median(1 - second / first for first, second in rounds),
        ratio=median(first / second for first, second in rounds),
        difference=float(np.abs(outputs[0] - outputs[1]).max()),
        allowed=max(answer["allowed"] for answer in last),
        seconds=seconds,
    )
