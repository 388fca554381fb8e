"""The settings that kinds share whose models read chat messages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from lmsys_ray.config.base import PathName
from lmsys_ray.members.language_model import LanguageModelSettings


class ChatSettings(LanguageModelSettings):
    """A language model that reads a conversation as its chat template writes it."""

    adapter: PathName | None = Field(
        None,
        description="LoRA: PEFT directory, URL of one, hub id or packaged name, with the tokenizer beside it where "
        "there is one; none: the model alone",
    )
    max_length: int = Field(
        4096, ge=16, description="tokens that a sequence may have; texts are cut in their middle, never the template"
    )
    special_tokens: Literal["auto", "text", "parse"] = Field(
        "auto",
        description="special tokens within a cell; text: read as plain text, so that no cell can end a turn; parse: "
        "turned into their ids, as in transformers; auto: text",
    )
    chat_template: str | None = Field(
        None,
        description="a Jinja text that takes the place of the model's chat template, or the name of one of several "
        "that the model brings; none: the model's",
    )
    system: str | None = Field(None, description="a system message before the conversation; none: no such message")

    @field_validator("chat_template", "system")
    @classmethod
    def _some_text(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a text that is not empty, or null")
        return value
