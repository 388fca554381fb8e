"""What `jobs/train_shared_encoder.py --set key=value` can change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lmsys_ray.config.base import StrictModel
from lmsys_ray.members.shared_encoder.settings import PRESETS, TEMPLATE, SharedEncoderSettings

SCORING_SETTINGS = ("preset", "template", "turns", "truncation", "max_length", "append_eos", "special_tokens")
"""Settings that must be the same in scoring as in training."""


class SharedEncoderOptions(StrictModel):
    """How a shared encoder is trained. `SCORING_SETTINGS` are what scoring with it then needs."""

    folds: int = Field(5, ge=2, description="by prompt, the classes spread evenly")
    fold_column: str | None = Field(None, description="the folds are this column's values, in alphabetical order")
    seed: int = Field(3, ge=0, description="of the folds, the order of the rows, and dropout")
    workers: PositiveInt | None = Field(None, description="processes; none: one per GPU of the cluster, one without")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: gpu where the cluster has one")
    allow_unauthenticated: bool = Field(
        False, description="run on a cluster of several machines that obeys whoever reaches its ports"
    )

    preset: Literal["kerasnlp"] | None = Field(None, description="kerasnlp: as the KerasNLP starter reads rows")
    template: str = Field(TEMPLATE, description="the text of one response: with {prompt} and {response}")
    turns: Literal["all", "first", "last"] = Field("all", description="the turns of each cell that are read")
    truncation: Literal["balanced", "right"] = Field(
        "balanced", description="balanced: prompt and response each cut in its middle; right: cut at the end"
    )
    max_length: int = Field(512, ge=16, description="tokens that a text, a prompt with one response, may have")
    append_eos: bool = Field(False, description="end each text in the tokenizer's EOS, where it does not do so itself")
    special_tokens: Literal["text", "parse"] = Field(
        "text", description="special tokens that stand in a cell: text, or parse into their ids"
    )

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="type of products; auto: the fastest of the device, float32 on most CPUs"
    )
    trust_pickle: bool = Field(False, description="read weights of the encoder that lie in pickles alone")
    frozen: bool = Field(
        False, description="learn the head alone, by logistic regression on means that are computed once"
    )

    epochs: PositiveInt = Field(3, description="a validation and a checkpoint follow each")
    learning_rate: PositiveFloat = Field(2e-5, description="of the encoder, at its highest")
    head_learning_rate: PositiveFloat = Field(1e-3, description="of the head, which begins at zero")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="the share of the steps in which the learning rate rises; a cosine to 0 follows"
    )
    weight_decay: float = Field(0.01, ge=0, description="of AdamW; none of biases and norms")
    clip: PositiveFloat = Field(1.0, description="the largest norm of the gradient")
    label_smoothing: float = Field(
        0.02, ge=0, lt=1, description="the share of a label that is spread over the three classes, in training alone"
    )
    swap: bool = Field(True, description="learn each row in both orders of A and B, which costs no second pass")
    batch_tokens: PositiveInt = Field(8192, description="tokens of a micro-batch, padding included")
    accumulate: PositiveInt = Field(1, description="micro-batches of each worker per step")

    checkpoint_steps: PositiveInt = Field(100, description="steps between two checkpoints to resume from")
    patience: PositiveInt = Field(2, description="stop after this many epochs without a new best")

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        implied = PRESETS.get(str(values.get("preset"))) if isinstance(values, dict) else None
        return {**{key: implied[key] for key in ("turns", "truncation")}, **values} if implied else values

    @model_validator(mode="after")
    def _one_worker_fits_a_head(self) -> SharedEncoderOptions:
        if self.frozen and (self.workers or 1) > 1:
            raise ValueError("workers = 1 beside frozen = true")
        return self


class TrainingSettings(SharedEncoderOptions):
    """The options, and what the command names."""

    input: list[str]
    output: str
    model: str
    fold: int = Field(0, ge=-1)

    def reading(self) -> SharedEncoderSettings:
        """Returns the member that reads rows as the training does; its model is the one to begin from."""
        shared = {key: getattr(self, key) for key in (*SCORING_SETTINGS, "trust_pickle")}
        return SharedEncoderSettings.model_validate(
            {"kind": "shared_encoder", "model": self.model, "dtype": "float32", **shared}
        )
