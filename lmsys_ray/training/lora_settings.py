"""What `jobs/train_lora.py --set key=value` can change."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lmsys_ray.config import LlamaSettings, Strict

SCORING_SETTINGS = ("layers", "text", "template", "max_length", "truncation", "append_eos", "special_tokens")
"""What scoring must set as training did."""


class LoraOptions(Strict):
    """How a LoRA is trained. `SCORING_SETTINGS` are what scoring with it then needs."""

    folds: int = Field(5, ge=2)
    fold_column: str | None = Field(None, description="the folds are this column's values, in alphabetical order")
    seed: int = Field(3, ge=0)
    workers: PositiveInt | None = Field(None, description="processes; none: one per GPU of the cluster, one without")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: gpu where the cluster has one")

    layers: PositiveInt | None = Field(None, description="use only so many of the model's first blocks; none: all")
    text: Literal["json", "notebook"] = "json"
    template: str = "labelled"
    max_length: int = Field(1024, ge=16, description="tokens a row may have")
    truncation: Literal["right", "balanced"] = "balanced"
    append_eos: bool = Field(False, description="end each row in the tokenizer's EOS, where it does not do so itself")
    special_tokens: Literal["text", "parse"] = Field(
        "text", description="special tokens that stand in a cell: text, or parse into their ids"
    )

    quantization: Literal["none", "nf4"] = Field("none", description="of the frozen base; nf4 is QLoRA")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="names of the layers that are adapted")
    top_layers: PositiveInt | None = Field(None, description="adapt only so many of the last blocks; none: all")

    head_start: Literal["zero", "fitted"] = Field(
        "zero", description="fitted: regress the classes on the frozen model's features first, a pass over the rows"
    )
    epochs: float = Field(2.0, ge=0, description="0: the fitted head alone, which takes no step")
    learning_rate: PositiveFloat = 3e-4
    head_learning_rate: PositiveFloat = Field(3e-5, description="of the head, where one step moves every logit at once")
    warmup: float = Field(0.1, ge=0, lt=1, description="the share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0)
    clip: PositiveFloat = Field(1.0, description="the largest norm of the gradient")
    swap: float = Field(0.5, ge=0, le=1, description="how probable it is that a row is shown with A and B swapped")
    batch_tokens: PositiveInt = Field(4096, description="tokens of a micro-batch, padding included")
    accumulate: PositiveInt = Field(1, description="micro-batches of each worker per step")
    checkpoint_activations: bool = Field(False, description="compute activations twice to hold fewer in memory")
    keep_frozen: bool = Field(False, description="keep in memory what the blocks below top_layers make of each row")
    compile: bool = Field(False, description="compile the blocks: a minute at first, a third faster on a CPU")

    evaluate_steps: PositiveInt = Field(50, description="steps between two validations")
    validation_rows: PositiveInt | None = Field(None, description="validate on at most so many rows on the way")
    checkpoint_steps: PositiveInt = Field(25, description="steps between two checkpoints to go on from")
    patience: PositiveInt = Field(4, description="stop after so many validations without a new best")

    @model_validator(mode="after")
    def _something_learns(self) -> LoraOptions:
        if not self.epochs and self.head_start != "fitted":
            raise ValueError("epochs above 0, or head_start=fitted beside epochs=0")
        return self

    @property
    def head_only(self) -> bool:
        """Whether no block is adapted: the adapter's LoRA, of rank 1 on one layer, stays zero."""
        return not self.epochs


class LoraSettings(LoraOptions):
    """One training: the options, and what the command names itself."""

    input: list[str] = Field(min_length=1, description="labelled files: .csv .csv.gz .parquet .jsonl")
    output: str = Field(description="directory of the adapter; appears whole, at the end")
    model: str = Field(description="transformers directory, GGUF file, hub id or packaged name of the backbone")
    fold: int = Field(0, ge=-1, description="the fold held out for validation; -1 trains on all rows")

    def scoring(self) -> LlamaSettings:
        """Returns the member that scores with the adapter."""
        shared = {key: getattr(self, key) for key in SCORING_SETTINGS}
        return LlamaSettings.model_validate({"kind": "llama", "model": self.model, "adapter": self.output, **shared})
