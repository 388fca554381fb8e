"""The learning rate over the steps of a training."""

import math


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Returns the factor of the learning rate at a step: a linear rise, then a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
