"""Joins the members' scores shard by shard and blends them."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.errors import RunError


def normalised(weights: Mapping[str, float]) -> dict[str, float]:
    """Returns weights that sum to 1."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def aligned(shard: pa.Table, scores: pa.Table, place: str) -> np.ndarray:
    """Returns a member's probabilities [rows, 3] for the scorable rows of its shard.

    Both were cut alike, so that a join is a comparison: raises `RunError`, which names `place`, unless `scores` holds
    exactly those rows, each once, in order, with finite probabilities.
    """
    rows = shard["row"].to_numpy()[~shard["rejected"].to_numpy(zero_copy_only=False)]
    if not np.array_equal(rows, scores["row"].to_numpy()):
        raise RunError(f"{place} does not hold the rows of its shard; remove that file and start the command again")
    probabilities = np.column_stack([scores[name].to_numpy() for name in CLASSES]).astype(np.float64)
    if not np.isfinite(probabilities).all() or (probabilities < 0).any() or (probabilities.sum(axis=1) <= 0).any():
        raise RunError(f"{place} holds values that are no probabilities; remove that file and start the command again")
    return probabilities


def blend(members: Mapping[str, np.ndarray], weights: Mapping[str, float], temperature: float = 1.0) -> np.ndarray:
    """Returns the weighted mean [rows, 3] of the members' probabilities, each row summing to 1.

    `temperature` is that of `tempered`, on the blend and not on each member.
    """
    mixed = np.asarray(sum(weights[name] * probabilities for name, probabilities in members.items()), np.float64)
    return tempered(mixed, temperature)


def tempered(mixed: np.ndarray, temperature: float) -> np.ndarray:
    """Returns `mixed` [..., 3], which is not negative and not all zero in a row, at a temperature and with a sum of 1.

    The logarithms are divided by `temperature`: 1 leaves the shares as they are, above 1 makes them less sure (Guo et
    al. 2017). A 0 stays 0.
    """
    if temperature != 1:
        with np.errstate(divide="ignore"):
            logits = np.log(mixed)
        logits -= _over_classes(np.maximum, logits)
        logits /= temperature
        mixed = np.exp(logits)
    return mixed / _over_classes(np.add, mixed)


def _over_classes(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Returns `operation` over the classes [..., 1]; along so short an axis `reduce` is several times slower."""
    a, b, tie = np.moveaxis(values, -1, 0)
    return operation(operation(a, b), tie)[..., None]


def with_prior(shard: pa.Table, scored: np.ndarray, prior: tuple[float, float, float]) -> np.ndarray:
    """Returns probabilities [rows, 3] of all rows of a shard: `scored` where it could be, else the class prior."""
    rejected = shard["rejected"].to_numpy(zero_copy_only=False)
    probabilities = np.tile(np.asarray(prior, dtype=np.float64), (shard.num_rows, 1))
    probabilities[~rejected] = scored
    return probabilities
