"""Battles with known strengths, and likelihoods of outcomes written out, each battle by itself."""

import numpy as np

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.settings import TieName


def probabilities(ties: TieName, d: np.ndarray, tie: float) -> np.ndarray:
    """Returns P(a), P(b), P(tie) [battles, 3] of differences of strength in logits; with `half`, without ties."""
    if ties == "half":
        a, b = 1 / (1 + np.exp(-d)), 1 / (1 + np.exp(d))
        return np.stack([a, b, np.zeros(len(d))], axis=1)
    if ties == "davidson":
        found = np.stack([np.exp(d / 2), np.exp(-d / 2), np.full(len(d), tie)], axis=1)
        return found / found.sum(axis=1, keepdims=True)
    a, b = 1 / (1 + np.exp(tie - d)), 1 / (1 + np.exp(tie + d))
    return np.stack([a, b, 1 - a - b], axis=1)


def log_likelihoods(ties: TieName, d: np.ndarray, tie: float, outcomes: np.ndarray) -> np.ndarray:
    """Returns the log-likelihood of each battle [battles]; with `half`, a tie is half a win for each."""
    p = probabilities(ties, d, tie)
    if ties == "half":
        won = outcomes[:, 0] + outcomes[:, 2] / 2
        return won * np.log(p[:, 0]) + (1 - won) * np.log(p[:, 1])
    return (outcomes * np.log(p)).sum(axis=1)


def of_parameters(battles: Battles, ties: TieName, parameters: np.ndarray) -> np.ndarray:
    """Returns the log-likelihood of each battle [battles] at strengths, coefficients of style, tie parameter."""
    models = len(battles.models)
    d = parameters[battles.first] - parameters[battles.second]
    if battles.style is not None:
        d = d + battles.style @ parameters[models : models + battles.style.shape[1]]
    return log_likelihoods(ties, d, parameters[-1], battles.outcomes)


def names(models: int) -> list[str]:
    return [f"model-{number:02}" for number in range(models)]


def drawn(
    strengths: np.ndarray,
    battles: int,
    seed: int,
    ties: TieName = "half",
    tie: float = 0.0,
    labels: bool = True,
    effects: np.ndarray | None = None,
) -> Battles:
    """Returns battles of models with these strengths in logits and, with `effects`, coefficients of style.

    Outcomes are drawn; without `labels` they are probabilities, with a noise of their own in each battle.
    """
    generator = np.random.default_rng(seed)
    models = len(strengths)
    first = generator.integers(models, size=battles)
    second = (first + generator.integers(1, models, size=battles)) % models
    style = None if effects is None else generator.normal(size=(battles, len(effects)))
    d = strengths[first] - strengths[second]
    if style is not None and effects is not None:
        d = d + style @ effects
    if not labels:
        d = d + generator.normal(size=battles)
    outcomes = probabilities(ties, d, tie)
    if labels:
        chosen = (generator.random(battles)[:, None] > outcomes.cumsum(axis=1)).sum(axis=1)
        outcomes = np.eye(3)[np.minimum(chosen, 2)]
    return Battles(names(models), first.astype(np.int32), second.astype(np.int32), outcomes, style)
