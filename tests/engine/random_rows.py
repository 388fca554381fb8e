"""Rows of random tokens."""

import torch


def random_rows(lengths: list[int]) -> list[torch.Tensor]:
    """Returns a row of token ids of each length, the same at each call."""
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(3, 400, (length,), generator=generator) for length in lengths]
