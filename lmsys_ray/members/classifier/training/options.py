"""What `jobs/train_classifier.py --set key=value` can change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lmsys_ray.config.base import StrictModel
from lmsys_ray.members.classifier.settings import ClassifierSettings, Texts

SCORING_SETTINGS = ("layers", "text", "turns", "template", "max_length", "truncation", "append_eos", "special_tokens")
"""Settings that must be the same in scoring as in training."""

_OF_LORA = ("quantization", "rank", "alpha", "dropout", "targets", "top_layers", "keep_frozen")
"""Options that mean nothing where all weights are trained."""

_RATES = {"adapter": 3e-4, "none": 2e-5}
"""Learning rates by the option `lora`."""


class TrainingOptions(StrictModel):
    """How a classifier is trained. `SCORING_SETTINGS` are what scoring with it then needs."""

    lora: Literal["adapter", "none"] = Field(
        "adapter",
        description="adapter: train a LoRA adapter and the head, the output is a PEFT directory; none: train all "
        "weights, the output is a transformers directory",
    )
    folds: int = Field(
        5,
        ge=2,
        description="how many parts the rows are cut into, by prompt and stratified by class; --fold holds one out",
    )
    fold_column: str | None = Field(None, description="the folds are this column's values, in alphabetical order")
    seed: int = Field(3, ge=0, description="of the folds, the order of the rows, the head, and dropout")
    workers: PositiveInt | None = Field(None, description="processes; none: one per GPU of the cluster, one without")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: gpu where the cluster has one")
    allow_unauthenticated: bool = Field(
        False, description="run on a cluster of several machines that obeys whoever reaches its ports"
    )

    layers: PositiveInt | None = Field(None, description="use only this many of a decoder's first blocks; none: all")
    text: Literal["json", "notebook"] = Field("json", description="how cells become text, as in scoring")
    turns: Literal["all", "first", "last"] = Field("all", description="the turns of each cell that are read")
    template: Texts = Field(
        "labelled",
        description="the text of a row: labelled, notebook, or a text with {prompt}, {response_a} and {response_b}; "
        "for an encoder also a list of two such texts",
    )
    max_length: int = Field(1024, ge=16, description="tokens a row may have")
    truncation: Literal["right", "balanced"] = Field(
        "balanced", description="right: cut at the end; balanced: each cell cut in its middle, 20/40/40"
    )
    append_eos: bool = Field(False, description="end each row in the tokenizer's EOS, where it does not do so itself")
    special_tokens: Literal["text", "parse"] = Field(
        "text", description="special tokens that stand in a cell: text, or parse into their ids"
    )

    quantization: Literal["none", "nf4"] = Field("none", description="of the frozen base; nf4 is QLoRA")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="type of matrix products, mixed with float32 where it is one of 16 bits; auto: bfloat16 where the "
        "device computes in it, else float16 on GPUs, float32 on CPUs",
    )
    rank: PositiveInt = Field(16, description="of the LoRA")
    alpha: PositiveInt = Field(32, description="alpha / rank scales what the LoRA adds")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the LoRA; a model's own dropout is in its config.json")
    targets: list[str] | Literal["all-linear"] = Field("all-linear", description="names of the layers that are adapted")
    top_layers: PositiveInt | None = Field(None, description="adapt only this many of the last blocks; none: all")

    trust_pickle: bool = Field(False, description="read weights of the base that lie in pickles alone")

    head_start: Literal["zero", "fitted"] = Field(
        "zero",
        description="zero: a decoder's head of zeros, an encoder's own or a random one; fitted: regress the classes on "
        "a decoder's frozen features first, a pass over the rows",
    )
    epochs: float = Field(2.0, ge=0, description="0: the fitted head alone, which takes no step")
    learning_rate: PositiveFloat | None = Field(None, description="none: 3e-4 for an adapter, 2e-5 for all weights")
    head_learning_rate: PositiveFloat = Field(3e-5, description="of the head, where one step moves every logit at once")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="the share of the steps in which the learning rate rises; a cosine to 0 follows"
    )
    weight_decay: float = Field(0.01, ge=0, description="of AdamW; none of biases and norms where all weights train")
    clip: PositiveFloat = Field(1.0, description="the largest norm of the gradient")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="the share of a label that is spread over the three classes, in training alone"
    )
    swap: float = Field(0.5, ge=0, le=1, description="how probable it is that a row is shown with A and B swapped")
    batch_tokens: PositiveInt = Field(4096, description="tokens of a micro-batch, padding included")
    accumulate: PositiveInt = Field(1, description="micro-batches of each worker per step")
    checkpoint_activations: bool = Field(False, description="compute activations twice to hold fewer in memory")
    keep_frozen: bool = Field(False, description="keep in memory what the blocks below top_layers make of each row")
    compile: bool = Field(False, description="compile a decoder's blocks: a minute at first, a third faster on a CPU")

    evaluate_steps: Annotated[int, Field(gt=0)] | Literal["epoch"] = Field(
        50, description="steps between two validations; epoch: one at the end of each epoch"
    )
    validation_rows: PositiveInt | None = Field(
        None, description="validate on at most this many rows during training; none: all that are held out"
    )
    checkpoint_steps: PositiveInt = Field(25, description="steps between two checkpoints to resume from")
    patience: PositiveInt = Field(4, description="stop after this many validations without a new best")

    @model_validator(mode="after")
    def _something_learns(self) -> TrainingOptions:
        if not self.epochs and self.head_start != "fitted":
            raise ValueError("epochs above 0, or head_start=fitted beside epochs=0")
        return self

    @model_validator(mode="after")
    def _only_what_means_something(self) -> TrainingOptions:
        if self.lora == "none":
            for name in _OF_LORA:
                if getattr(self, name) != TrainingOptions.model_fields[name].default:
                    raise ValueError(f"{name} is of adapters: leave it out, or lora=adapter")
        return self

    @property
    def product(self) -> Literal["adapter", "model"]:
        """What the training makes."""
        return "adapter" if self.lora == "adapter" else "model"

    @property
    def rate(self) -> float:
        """The learning rate of all that is trained but the head."""
        return self.learning_rate or _RATES[self.lora]

    @property
    def head_only(self) -> bool:
        """Whether only the head is trained: an adapter's LoRA, of rank 1 on one layer, stays zero."""
        return not self.epochs


class TrainingSettings(TrainingOptions):
    """One training: the options, and what the command's own flags set."""

    input: list[str] = Field(min_length=1, description="labelled files: .csv .csv.gz .parquet .jsonl")
    output: str = Field(description="directory of the adapter or model; appears whole, at the end")
    model: str = Field(description="transformers directory, GGUF file, hub id or packaged name of the backbone")
    fold: int = Field(0, ge=-1, description="the fold held out for validation; -1 trains on all rows")

    def scoring(self) -> ClassifierSettings:
        """Returns the member that scores with what was trained."""
        named = {"model": self.model, "adapter": self.output} if self.lora == "adapter" else {"model": self.output}
        return ClassifierSettings.model_validate({"kind": "classifier", **self.noted(), **named})

    def reading(self) -> ClassifierSettings:
        """Returns a member that reads rows as the training does; its model is not trained yet."""
        return self.scoring().model_copy(update={"model": self.model, "adapter": None, "layers": self.layers})

    def noted(self) -> dict[str, object]:
        """Returns the settings that scoring needs; a model of which all weights were trained is saved as it is cut."""
        shared = {key: getattr(self, key) for key in SCORING_SETTINGS}
        return shared if self.lora == "adapter" else shared | {"layers": None}
