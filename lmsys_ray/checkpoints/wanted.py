"""What a member reads of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lmsys_ray import CLASSES

HeadSetting = Literal["auto", "linear", "mlp", "value_head", "token"]
"""The setting `head`: how a model's last hidden state becomes its outputs; auto: as the names of its weights say."""


@dataclass(frozen=True)
class Wanted:
    """The outputs of a model that a member reads."""

    outputs: int
    head: HeadSetting = "auto"
    labels: tuple[str, ...] | None = None
    """What the outputs of a classifier are where the model does not say it."""
    tokens: tuple[int, ...] = ()
    """The ids of the tokens whose logits are the outputs, where `head` is `token`."""

    @classmethod
    def three_labels(cls, labels: Sequence[str] | None = None, head: HeadSetting = "auto") -> Wanted:
        """Returns the three labels of a classifier."""
        return cls(len(CLASSES), head, None if labels is None else tuple(labels))

    @classmethod
    def one_score(cls, head: HeadSetting = "auto") -> Wanted:
        """Returns the single output of a reward model; the head `token` reads the logit of the token 0."""
        return cls(1, head, tokens=(0,) if head == "token" else ())

    @classmethod
    def logits_of(cls, tokens: Sequence[int]) -> Wanted:
        """Returns the logits of some tokens of a language model."""
        return cls(len(tokens), "token", tokens=tuple(tokens))

    @property
    def is_labels(self) -> bool:
        """Whether the outputs are those of a classifier of three labels."""
        return self.head != "token" and self.outputs == len(CLASSES)
