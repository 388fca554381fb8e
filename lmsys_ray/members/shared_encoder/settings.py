"""The settings of a shared encoder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from lmsys_ray.config.base import PathName
from lmsys_ray.members.language_model import LanguageModelSettings

TEMPLATE = "Prompt: {prompt}\n\nResponse: {response}"

PRESETS: dict[str, dict[str, Any]] = {
    "kerasnlp": {"turns": "first", "truncation": "right", "padding": "max_length"},
}
"""The settings that a preset implies."""


class SharedEncoderSettings(LanguageModelSettings):
    """An encoder that reads A's and B's text with the same weights, and a dense layer on both means."""

    ARTIFACTS: ClassVar[tuple[str, ...]] = ("model",)

    kind: Literal["shared_encoder"]
    model: PathName = Field(
        description="directory that jobs/train_shared_encoder.py wrote: encoder, tokenizer and head.safetensors; URL "
        "of one, or hub id"
    )
    adapter: Literal[None] = Field(None, description="none: encoders take no adapter here")
    layers: Literal[None] = Field(None, description="none: all of the encoder's blocks are used")
    quantization: Literal["none"] = Field("none", description="encoders are computed in 16 or 32 bits")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="type of weights and activations; auto: the one in scoring.json where the device computes in it, "
        "else bfloat16 on GPUs that have it, float16 on other GPUs, float32 on CPUs",
    )
    swap: bool = Field(
        False,
        description="score each row as A/B and as B/A and average both: no position bias, and no second pass, since "
        "each text is computed once",
    )
    preset: Literal["kerasnlp"] | None = Field(
        None,
        description="kerasnlp: reads cells as the contest's KerasNLP starter does, and averages over all max_length "
        "positions, padding included; implies turns first, truncation right and padding max_length",
    )
    template: str = Field(TEMPLATE, description="the text that is read of one response: with {prompt} and {response}")
    truncation: Literal["balanced", "right"] = Field(
        "balanced",
        description="balanced: a third for the prompt, the rest for the response, each cut in its middle; right: cut "
        "at the end",
    )
    max_length: int = Field(512, ge=16, description="tokens that a text, a prompt with one response, may have")
    padding: Literal["none", "longest", "max_length"] = Field(
        "none",
        description="none, longest: texts of similar length are padded to the longest; max_length: to max_length",
    )
    special_tokens: Literal["auto", "text", "parse"] = Field(
        "auto",
        description="special tokens within a cell; text: read as plain text; parse: turned into their ids, as in "
        "transformers; auto: as scoring.json notes, else text",
    )

    @property
    def slots(self) -> int | None:
        """How many positions the mean is over, padding included; None: over the real tokens."""
        return self.max_length if self.preset else None

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        implied = PRESETS.get(str(values.get("preset"))) if isinstance(values, dict) else None
        return {**implied, **values} if implied else values

    @model_validator(mode="after")
    def _as_the_preset(self) -> SharedEncoderSettings:
        for key, value in PRESETS.get(str(self.preset), {}).items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} = {value} beside preset = {self.preset}, or no preset")
        return self
