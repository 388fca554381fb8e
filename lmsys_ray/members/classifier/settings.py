"""The settings of a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.config.base import present_kind
from lmsys_ray.members.language_model import LanguageModelSettings


def _one_or_two(texts: str | list[str]) -> str | list[str]:
    if not isinstance(texts, str) and len(texts) != 2:
        raise ValueError("one text, or a list of two")
    return texts


Texts = Annotated[str | list[str], AfterValidator(_one_or_two)]
"""The template of a row: one text, or the two of a pair."""


class ClassifierSettings(LanguageModelSettings):
    """A transformer with a head of three labels, a LoRA adapter on it or not."""

    kind: Annotated[Literal["classifier"], BeforeValidator(present_kind)]
    text: Literal["json", "notebook"] = Field(
        "json",
        description="how cells become text; json: turns decoded and joined by a blank line; notebook: as the reference "
        "notebook reads them",
    )
    template: Texts = Field(
        "notebook",
        description="the text of a row: notebook, labelled, or a text with {prompt}, {response_a} and {response_b}; "
        "for an encoder also a list of two such texts, which its tokenizer joins as a pair",
    )
    truncation: Literal["right", "balanced"] = Field(
        "right",
        description="right: cut at the end; balanced: 20/40/40 between prompt, A and B, each cut in its middle",
    )
    labels: list[Literal["a", "b", "tie"]] | None = Field(
        None,
        description="what the columns of the head hold where the model does not name them, such as [tie, a, b]; "
        "none: a, b, tie",
    )

    head: Literal["auto", "linear", "mlp"] = Field(
        "auto",
        description="form of a decoder's head; linear, mlp: by its weights' names, even where a model comes with "
        "code of its own; auto: as these names say",
    )

    @property
    def wanted(self) -> Wanted:
        """What is read of the model."""
        return Wanted.three_labels(self.labels, self.head)

    @field_validator("labels")
    @classmethod
    def _each_once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and sorted(value) != ["a", "b", "tie"]:
            raise ValueError("a, b and tie in the order of the head's columns, each once")
        return value
