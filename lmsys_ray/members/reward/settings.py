"""The settings of a reward model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.members.chat_settings import ChatSettings
from lmsys_ray.members.two_scores import TwoScoreSettings


class RewardSettings(TwoScoreSettings, ChatSettings):
    """A transformer that scores one response to a prompt: the higher, the better."""

    MUTABLE: ClassVar[frozenset[str]] = TwoScoreSettings.MUTABLE | ChatSettings.MUTABLE

    kind: Literal["reward"]
    head: Literal["auto", "linear", "mlp", "value_head", "token"] = Field(
        "auto",
        description="what turns the last token's state into a score; token: the logit of token 0 of a causal model; "
        "auto: told by the names of the weights",
    )
    sign: Literal[1, -1] = Field(1, description="-1 for models whose score is lower for the better response")
    input: Literal["auto", "chat", "pair"] = Field(
        "auto",
        description="chat: messages as the chat template writes them; pair: prompt and response as the tokenizer's "
        "pair of texts; auto: pair for encoders such as DeBERTa, else chat",
    )
    add_generation_prompt: bool = Field(
        False, description="end with what begins a further answer in the chat template, as some models were trained"
    )

    @property
    def wanted(self) -> Wanted:
        """What is read of the model."""
        return Wanted.one_score(self.head)
