"""The settings of a LightGBM member."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lmsys_ray.config.base import PathName, PositiveInt
from lmsys_ray.members.protocol import MemberSettings


class LightGBMSettings(MemberSettings):
    """Gradient-boosted trees on counts of words and characters."""

    MUTABLE: ClassVar[frozenset[str]] = frozenset({"weight", "workers"})
    ARTIFACTS: ClassVar[tuple[str, ...]] = ("artifacts",)

    kind: Literal["lightgbm"]
    artifacts: PathName = Field(description="directory of vocabularies and boosters, URL of one, or packaged:lightgbm")
    swap: Literal[False] = Field(False, description="not offered for this kind")
    workers: PositiveInt | Literal["auto"] = Field("auto", description="processes that score; auto: half the CPUs")
