"""The batches of an epoch, and of a validation."""

import numpy as np

from lmsys_ray.engine import batching

_WINDOW_BATCHES = 32


def epoch_batches(lengths: np.ndarray, batch_tokens: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """Returns the micro-batches of one epoch, as arrays of rows; `seed` is (seed, epoch).

    Rows are shuffled, and rows of similar length are put together within windows of several batches: hardly any
    padding, and each row still meets other rows in each epoch. The order of the batches is random.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    rows = max(1, int(_WINDOW_BATCHES * batch_tokens / max(1.0, lengths.mean())))
    batches = []
    for start in range(0, len(order), rows):
        window = order[start : start + rows]
        planned = batching.plan(lengths[window], batch_tokens, "longest", int(lengths.max()))
        batches += [window[batch] for batch in planned]
    return [batches[i] for i in random.permutation(len(batches))]


def validation_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of indices into `lengths`, rows of similar length together."""
    return batching.plan(lengths, batch_tokens, "longest", int(lengths.max(initial=0)))
