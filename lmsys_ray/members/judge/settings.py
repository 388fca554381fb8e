"""The settings of a judge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lmsys_ray.members.chat_settings import ChatSettings

VERDICTS = {"a": ["A"], "b": ["B"], "tie": ["C"]}
"""The texts of each verdict where the settings name no others."""


def _texts_by_class(value: Any) -> dict[str, list[str]]:
    """Returns the texts of each verdict as lists; those that are not named keep their default."""
    fault = ValueError(
        "a mapping of a, b and tie to a text in quotes, or a list of them; tie may be null, for no such verdict"
    )
    if not isinstance(value, dict) or value.keys() - VERDICTS.keys():
        raise fault
    texts = VERDICTS | {
        key: [] if own is None else [own] if isinstance(own, str) else own for key, own in value.items()
    }
    for key, own in texts.items():
        if not isinstance(own, list) or not all(isinstance(text, str) and text.strip() for text in own):
            raise fault
        if not own and key != "tie":
            raise fault
    return {key: list(dict.fromkeys(texts[key])) for key in VERDICTS}


class JudgeSettings(ChatSettings):
    """A causal language model and the question that it answers with a verdict of one token."""

    kind: Literal["judge"]
    prompt: str = Field(
        "pairwise",
        description="what the judge is asked, as the user's message: pairwise, pairwise_reference_free, or a text with "
        "{prompt}, {response_a} and {response_b}, or {conversation_a} and {conversation_b}",
    )
    verdicts: Annotated[dict[str, list[str]], BeforeValidator(_texts_by_class)] = Field(
        VERDICTS,
        description="the answers that count for a, b and tie: a text of one token each, or a list of such texts, whose "
        "probabilities are added; tie: null gives P(tie) = 0",
    )
    prefix: str = Field("", description='the beginning of the judge\'s answer, which its verdict follows: "Verdict: "')
    swap: bool = Field(
        True,
        description="judge each row as A/B and as B/A and average both: no position bias, at up to twice the cost",
    )
