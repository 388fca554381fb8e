"""The weighted mean of members' probabilities, its temperature, and what all ways to blend share."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from lmsys_ray.ensemble.links import Link
from lmsys_ray.errors import DamagedError
from lmsys_ray.run_directory.score_checks import misfit, probabilities_of, scores_of


def normalise(weights: Mapping[str, float]) -> dict[str, float]:
    """Returns `weights` scaled to sum to 1; they may be of any size, even near the limits of floats."""
    largest = max(weights.values())
    shares = {name: weight / largest for name, weight in weights.items()}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def normalisation_line(weights: Mapping[str, float]) -> str:
    """Returns a sentence about weights that do not sum to 1, empty if they do."""
    total = sum(weights.values())
    if abs(total - 1) <= 1e-9:
        return ""
    counted = normalise({name: weight for name, weight in weights.items() if weight > 0})
    shares = ", ".join(f"{name} {weight:.4g}" for name, weight in counted.items())
    return f"the weights sum to {total:.4g}; normalised to sum to 1: {shares}"


def aligned(shard: pa.Table, scores: pa.Table, place: str, link: Link | None = None) -> np.ndarray:
    """Returns a member's probabilities, float64 [rows, 3], for the scorable rows of its shard.

    A member that scores each response by itself has a `link`.

    Shards and scores are cut alike, so that the join is a comparison. Raises `DamagedError`, which names `place`, where
    `misfit` finds a difference.
    """
    if found := misfit(shard, scores):
        raise DamagedError(f"{place} {found}; a start of score.py makes it again")
    if link is None:
        return probabilities_of(scores)
    a, b = scores_of(scores).T
    return link.probabilities(a - b)


def blend(members: Mapping[str, np.ndarray], weights: Mapping[str, float], temperature: float = 1.0) -> np.ndarray:
    """Returns the weighted mean [rows, 3] of the members' probabilities, each row summing to 1.

    `temperature` (see `tempered`) applies to the blend, not to each member.
    """
    mixed = np.asarray(sum(weights[name] * probabilities for name, probabilities in members.items()), np.float64)
    return tempered(mixed, temperature)


def tempered(mixed: np.ndarray, temperature: float) -> np.ndarray:
    """Returns `mixed` [..., 3], non-negative with a positive sum, at a temperature and normalised to sum to 1.

    Logarithms are divided by `temperature`: 1 changes nothing, above 1 probabilities become less certain (Guo et al.
    2017). A 0 stays 0.
    """
    if temperature != 1:
        with np.errstate(divide="ignore"):  # log(0) is -inf, and exp gives 0 again
            return softmax(np.log(mixed), temperature)
    return mixed / _over_classes(np.add, mixed)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns the probabilities [..., 3] of logits, of which one in each row is finite, at a temperature."""
    with np.errstate(over="ignore"):
        found = np.exp((logits - _over_classes(np.maximum, logits)) / temperature)
    return found / _over_classes(np.add, found)


def _over_classes(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Returns `operation` reduced over the classes [..., 1]; `reduce` is several times slower on so short an axis."""
    a, b, tie = np.moveaxis(values, -1, 0)
    return operation(operation(a, b), tie)[..., None]


def with_prior(shard: pa.Table, scored: np.ndarray, prior: tuple[float, float, float]) -> np.ndarray:
    """Returns probabilities [rows, 3] of all rows of a shard: `scored` for its scorable rows, else the class prior."""
    rejected = shard["rejected"].to_numpy(zero_copy_only=False)
    probabilities = np.tile(np.asarray(prior, dtype=np.float64), (shard.num_rows, 1))
    probabilities[~rejected] = scored
    return probabilities
