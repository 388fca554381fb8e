"""The leaderboard: a standing for each model, and how it was estimated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.ensemble.leaderboard.strengths import Strengths, estimate
from lmsys_ray.errors import RunError

SCALE = 400 / np.log(10)
"""Points for a logit: with 400 more, the odds of winning are 10 to 1, as with Elo's and the Arena's ratings."""

ORIGIN = 1000.0
"""The mean strength of the models, or the strength of the anchor, in points."""


@dataclass(frozen=True)
class Standing:
    """A model's line; strength and intervals in points, None where there are none."""

    rank: int | None
    """1 plus the number of models whose interval lies above this one's, as in Chatbot Arena."""
    model: str
    strength: float | None
    lower: float | None
    upper: float | None
    lower_bootstrap: float | None
    upper_bootstrap: float | None
    battles: int
    win_rate: float
    """Wins and half the ties, as a share of the battles; with expected outcomes their expectation."""
    tie_rate: float
    reason: str | None
    """Why there is no strength."""


@dataclass(frozen=True)
class Leaderboard:
    """The standings, the strongest first, models without strength last; of equal ones by name."""

    settings: LeaderboardSettings
    standings: list[Standing]
    win_rates: np.ndarray
    """The share of wins and half the ties of a row's model against a column's [models, models], NaN where they never
    met; in the order of `standings`, as `battles`."""
    battles: np.ndarray
    """How often two models met [models, models]."""
    strengths: Strengths
    left_out: dict[str, int]
    """Rows that are no battle, by reason."""


def leaderboard(battles: Battles, settings: LeaderboardSettings) -> Leaderboard:
    """Returns the leaderboard of at least one battle; raises `RunError` for an anchor without strength."""
    anchor = _anchor(battles, settings)
    strengths = estimate(battles, settings.ties, settings.bootstrap)
    if anchor is not None and anchor in strengths.reasons:
        reason = strengths.reasons[anchor]
        raise RunError(f"leaderboard.anchor: {settings.anchor} has no strength ({reason}); name another model, or none")
    shift = 0.0 if anchor is None else float(strengths.values[anchor])
    met, won, tied = _matrices(battles)
    count = met.sum(axis=1)
    lines = zip(
        _ranks(strengths),
        battles.models,
        _points(strengths.values - shift),
        *(_points(end - shift) for end in (*strengths.intervals, *strengths.bootstrapped)),
        count.astype(int).tolist(),
        (won.sum(axis=1) / count).tolist(),
        (tied.sum(axis=1) / count).tolist(),
        [strengths.reasons.get(number) for number in range(len(battles.models))],
        strict=True,
    )
    standings = [Standing(*line) for line in lines]
    order = sorted(range(len(standings)), key=lambda number: _place(standings[number]))
    rates = np.divide(won, met, out=np.full_like(won, np.nan), where=met > 0)
    return Leaderboard(
        settings,
        [standings[number] for number in order],
        rates[np.ix_(order, order)],
        met[np.ix_(order, order)],
        strengths,
        battles.left_out,
    )


def _anchor(battles: Battles, settings: LeaderboardSettings) -> int | None:
    if settings.anchor is None:
        return None
    if settings.anchor not in battles.models:
        some = ", ".join(battles.models[:8]) + (", …" if len(battles.models) > 8 else "")
        raise RunError(f"leaderboard.anchor: {settings.anchor} is none of the {len(battles.models)} models ({some})")
    return battles.models.index(settings.anchor)


def _matrices(battles: Battles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns battles, wins with half the ties, and ties, of rows' models against columns' [models, models]."""
    models = len(battles.models)
    there, back = (battles.first, battles.second), (battles.second, battles.first)
    a, b, tie = battles.outcomes.T

    def summed(of_a: np.ndarray, of_b: np.ndarray) -> np.ndarray:
        found = np.zeros(models**2)
        for (model, other), values in ((there, of_a), (back, of_b)):
            found += np.bincount(model.astype(np.int64) * models + other, weights=values, minlength=models**2)
        return found.reshape(models, models)

    ones = np.ones(len(tie))
    return summed(ones, ones), summed(a + tie / 2, b + tie / 2), summed(tie, tie)


def _ranks(strengths: Strengths) -> list[int | None]:
    lower, upper = strengths.intervals
    above = np.sort(lower[~np.isnan(lower)])
    better = len(above) - np.searchsorted(above, upper, side="right")
    return [None if np.isnan(end) else int(number) + 1 for end, number in zip(upper, better, strict=True)]


def _points(logits: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(ORIGIN + SCALE * value) for value in logits]


def _place(standing: Standing) -> tuple[bool, float, str]:
    return standing.strength is None, -(standing.strength or 0.0), standing.model
