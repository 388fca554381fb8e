"""The settings of a run: one validated model, mirrored by the YAML files and by `--set key=value`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Refuses unknown keys, values of another type and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LlamaSettings(Strict):
    """A decoder-only transformer with a head of three labels, a LoRA adapter on it or not."""

    CHANGEABLE: ClassVar[set[str]] = {
        *("weight", "device", "replicas", "max_replicas", "gpus_per_replica", "batch_tokens", "threads")
    }
    """What may change between two starts of a run: it moves no probability beyond rounding, but see `changeable`."""

    kind: Literal["llama"]
    model: str = Field(description="transformers directory, GGUF file, hub id or packaged name of the base model")
    adapter: str | None = Field(
        None, description="PEFT directory, hub id or packaged name; none where model has the head"
    )
    layers: PositiveInt | None = Field(None, description="use only so many of the model's first blocks; none: all")
    quantization: Literal["auto", "none", "int8", "nf4", "int8_dynamic", "fp8"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    text: Literal["json", "notebook"] = Field("json", description="how cells become text")
    template: str = Field("notebook", description="packaged name, or text with {prompt}, {response_a}, {response_b}")
    max_length: int = Field(2048, ge=16, description="tokens a row may have")
    truncation: Literal["right", "balanced"] = "right"
    padding: Literal["none", "longest", "max_length"] = "none"
    batch_tokens: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="tokens of a micro-batch, padding included; auto: the most, up to a limit, that the GPU holds",
    )
    swap: bool = Field(False, description="score each row as A/B and as B/A and average both, at up to twice the cost")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="what a replica runs on; auto: GPUs where the cluster has some, or is known to start some"
    )
    replicas: PositiveInt | Literal["auto"] = Field(
        "auto", description="auto: one per GPU, also on nodes that join during a pass; one on a CPU"
    )
    max_replicas: PositiveInt = Field(256, description="replicas that auto asks a cluster for at most")
    gpus_per_replica: float = Field(1, gt=0, description="a whole number above 1: the model lies on several GPUs")
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="CPU cores of a replica; auto: all, shared out evenly where replicas is a number"
    )
    append_eos: bool = Field(False, description="end each row in the tokenizer's EOS, where it does not do so itself")
    special_tokens: Literal["auto", "text", "parse"] = Field(
        "auto",
        description="special tokens that stand in a cell: text, or parse into their ids as transformers does; "
        "auto: as the adapter notes, else parse",
    )
    labels: list[Literal["a", "b", "tie"]] | None = Field(
        None, description="what the columns of the head hold, where the model does not name them; none: a, b, tie"
    )
    weight: float = Field(1.0, ge=0)

    def changeable(self) -> set[str]:
        """Returns what may change between two starts of a run; with int8, which depends on them, not micro-batches."""
        return self.CHANGEABLE - {"batch_tokens"} if self.quantization == "int8" else self.CHANGEABLE

    @field_validator("labels")
    @classmethod
    def _each_once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and sorted(value) != ["a", "b", "tie"]:
            raise ValueError("a, b and tie in the order of the head's columns, each once")
        return value

    @field_validator("gpus_per_replica")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("a share of one GPU, or a whole number of them")
        return value


class LightGBMSettings(Strict):
    """Gradient-boosted trees on counts of words and characters."""

    CHANGEABLE: ClassVar[set[str]] = {"weight", "workers"}

    kind: Literal["lightgbm"]
    artifacts: str = Field(description="directory of vocabularies and boosters, or a packaged name")
    swap: Literal[False] = Field(False, description="not offered for this kind")
    workers: PositiveInt | Literal["auto"] = "auto"
    weight: float = Field(1.0, ge=0)

    def changeable(self) -> set[str]:
        """Returns what may change between two starts of a run."""
        return self.CHANGEABLE


MemberSettings = Annotated[LlamaSettings | LightGBMSettings, Field(discriminator="kind")]


def member_models() -> dict[str, type[BaseModel]]:
    """Returns the settings class of each kind of member."""
    models = get_args(get_args(MemberSettings)[0])
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models}


MemberName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Settings(Strict):
    """One run of the scorer."""

    input: list[str] = Field(min_length=1, description="path, glob or list; .csv .csv.gz .parquet .jsonl")
    output: str = Field(description="the run directory")
    shard_rows: PositiveInt | Literal["auto"] = Field(
        "auto", description="rows of a shard, the unit of work and of resume; auto: 64 to 1,024, by the input's bytes"
    )
    limit: PositiveInt | None = Field(None, description="read only this many rows")
    cells: Literal["auto", "json", "text"] = Field("auto", description="whether cells are JSON lists or plain text")
    on_bad_row: Literal["reject", "fail"] = "reject"
    max_error_rate: Probability = Field(
        0.01, description="share of rejects above which a run stops; the first ten never stop it"
    )
    max_deaths: PositiveInt = Field(
        3, description="processes that may die at one shard, then at one row, before it is held to be the cause"
    )
    shard_seconds: float = Field(
        7200, gt=0, description="a process that is at one shard for longer is held to hang and started again"
    )
    prior: tuple[Probability, Probability, Probability] = Field(
        (0.349, 0.342, 0.309), description="P(a), P(b), P(tie) of a row that cannot be scored"
    )
    temperature: float = Field(1.0, gt=0, description="of the blend: above 1 moves it towards equal shares")
    members: dict[MemberName, MemberSettings] = Field(min_length=1)

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("prior")
    @classmethod
    def _prior_sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError("three probabilities that sum to 1")
        return value

    @model_validator(mode="after")
    def _some_weight(self) -> Settings:
        if not any(member.weight > 0 for member in self.members.values()):
            raise ValueError("at least one member with a weight above 0")
        return self
