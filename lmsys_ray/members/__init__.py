"""Ensemble members: each turns conversations into probabilities of A preferred, B preferred, tie."""

from collections.abc import Callable

import pyarrow as pa

from lmsys_ray.config import LightGBMSettings, LlamaSettings
from lmsys_ray.conversations import CellForm
from lmsys_ray.members.base import Scorer


def make_encoder(settings: LlamaSettings | LightGBMSettings, cells: CellForm) -> Callable[[pa.Table], pa.Table]:
    """Returns the CPU half of a member, which does nothing where the member scores conversations as they are."""
    if isinstance(settings, LightGBMSettings):
        return _as_they_are
    from lmsys_ray.members.llama.encode import LlamaEncoder

    return LlamaEncoder(settings, cells).encode


def _as_they_are(conversations: pa.Table) -> pa.Table:
    return conversations


def make_scorer(settings: LlamaSettings | LightGBMSettings, cells: CellForm) -> Scorer:
    """Loads a member's model; imports only what its kind needs, since workers start with it.

    `cells` says what the raw cells hold, for a kind that scores conversations as they are.
    """
    if isinstance(settings, LightGBMSettings):
        from lmsys_ray.members.lightgbm.scorer import LightGBMScorer

        return LightGBMScorer(settings, cells)
    from lmsys_ray.members.llama.scorer import LlamaScorer

    return LlamaScorer(settings)
