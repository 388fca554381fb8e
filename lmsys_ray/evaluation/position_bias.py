"""Position bias: how a member's probabilities depend on which response comes first."""

import numpy as np

from lmsys_ray.metrics import Estimate, estimate_means, hits, log_losses

MEASURES = ("first_gain", "change", "flips", "log_loss_plain", "log_loss_swapped", "log_loss_both")
"""The order of the measures that `position_bias` estimates."""


def position_bias(plain: np.ndarray, swapped: np.ndarray, labels: np.ndarray, prompts: np.ndarray) -> Estimate:
    """Estimates `MEASURES` from the probabilities of A/B and of B/A, swapped back, both [rows, 3].

    - `first_gain`: the probability that a response gains by coming first, negative if it loses, -1 to 1
    - `change`: total variation distance between the two orders, 0 to 1
    - `flips`: share of rows whose most probable class changes
    - `log_loss_plain`, `log_loss_swapped`, `log_loss_both`: of each order and of their mean
    """
    change = plain - swapped
    terms = [
        (change[:, 0] - change[:, 1]) / 2,
        np.abs(change).sum(axis=1) / 2,
        ~hits(plain, swapped.argmax(axis=1)),
        log_losses(plain, labels),
        log_losses(swapped, labels),
        log_losses((plain + swapped) / 2, labels),
    ]
    return estimate_means(np.column_stack(terms), prompts)
