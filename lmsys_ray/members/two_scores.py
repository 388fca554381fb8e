"""The settings of kinds that score each response by itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmsys_ray.ensemble.links import LinkName
from lmsys_ray.members.protocol import LinkSettings, MemberSettings


class TwoScoreSettings(MemberSettings):
    """How two scores of a row become P(a), P(b) and P(tie); `lmsys_ray.ensemble.links` has the formulas."""

    MUTABLE: ClassVar[frozenset[str]] = frozenset({"weight", "link", "scale", "tie"})

    link: LinkName = Field(
        "davidson",
        description="how two scores become probabilities: davidson (1970), or rao_kupper (1967)",
    )
    scale: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="what a difference of scores is divided by; auto: the spread of the differences in this run, until "
        "calibrate.py fits it to labels",
    )
    tie: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="davidson: the odds of a tie between equals; rao_kupper: the threshold of a preference; auto: such "
        "that ties are as frequent as in the prior",
    )
    swap: Literal[False] = Field(False, description="not offered: a response's score does not depend on its side")

    def link_settings(self) -> LinkSettings:
        """Returns how two scores become probabilities."""
        scale, tie = (None if value == "auto" else value for value in (self.scale, self.tie))
        return LinkSettings(self.link, scale, tie)

    def mutable(self) -> frozenset[str]:
        """Returns what may change between two starts: a new link needs no new scores."""
        return super().mutable() | TwoScoreSettings.MUTABLE
