"""The settings that all kinds with a language model share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from lmsys_ray.config.base import PathName, PositiveInt
from lmsys_ray.members.protocol import MemberSettings


class LanguageModelSettings(MemberSettings):
    """A transformer, a LoRA adapter on it or not: how it is loaded, placed and batched."""

    MUTABLE: ClassVar[frozenset[str]] = frozenset(
        {
            *("weight", "device", "replicas", "max_replicas", "gpus_per_replica", "batch_tokens", "threads"),
            "trust_pickle",
        }
    )
    ARTIFACTS: ClassVar[tuple[str, ...]] = ("model", "adapter")

    model: PathName = Field(
        description="transformers directory, URL of one, GGUF file, hub id (org/name or org/name@revision), or "
        "packaged:smollm2-135m"
    )
    adapter: PathName | None = Field(
        None,
        description="LoRA: PEFT directory, URL of one, hub id or packaged name, with the tokenizer beside it where "
        "there is one; none: the model itself is a classifier of three labels",
    )
    layers: PositiveInt | None = Field(
        None,
        description="use only so many of the model's first blocks, as its adapter was trained (half the blocks take "
        "half the time); none: all",
    )
    quantization: Literal["auto", "none", "int8", "nf4", "int8_dynamic", "fp8"] = Field(
        "auto",
        description="int8, nf4: by bitsandbytes; int8_dynamic, fp8: 8-bit products; auto: the largest of none, int8 "
        "and nf4 that fits the GPU, a checkpoint stored quantized as it is",
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="type of weights and activations; auto: the one in the adapter's scoring.json where the device "
        "computes in it, else bfloat16 on GPUs that have it, float16 on other GPUs, float32 on CPUs",
    )
    max_length: int = Field(2048, ge=16, description="tokens that a row may have")
    padding: Literal["none", "longest", "max_length"] = Field(
        "none", description="none: rows packed end to end, where the model allows it; the others pad"
    )
    batch_tokens: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="tokens of a micro-batch, padding included; auto: 2,048 on a CPU and with int8, else the most that "
        "the GPU holds, up to 16,384",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="what replicas run on; auto: GPUs where the cluster has some, or is known to start some"
    )
    replicas: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="copies of the model; auto: one per GPU, also on nodes that join during a pass; one on a machine "
        "without",
    )
    max_replicas: PositiveInt = Field(256, description="the most replicas that auto asks a cluster for")
    gpus_per_replica: float = Field(
        1, gt=0, description="a fraction: replicas share a GPU; above 1 a whole number: the model lies on several GPUs"
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="CPU cores of a replica; auto: all, shared out evenly where replicas is a number"
    )
    turns: Literal["all", "first", "last"] = Field(
        "all", description="the turns of a conversation that are read: all, or the first or last of each cell alone"
    )
    append_eos: bool = Field(
        False, description="end each row with the tokenizer's EOS token, where it does not do so itself"
    )
    special_tokens: Literal["auto", "text", "parse"] = Field(
        "auto",
        description="special tokens within a cell; text: read as plain text; parse: turned into their ids, as in "
        "transformers; auto: as the adapter notes, else parse",
    )
    trust_pickle: bool = Field(
        False,
        description="read weights that exist only as pickles (pytorch_model.bin, adapter_model.bin), which can run "
        "code: only from makers whom you trust; the flag --trust-pickle sets it",
    )

    def mutable(self) -> frozenset[str]:
        """Returns what may change between two starts of a run; with int8, which depends on them, not micro-batches."""
        allowed = super().mutable() | LanguageModelSettings.MUTABLE
        return allowed - {"batch_tokens"} if self.quantization == "int8" else allowed

    @field_validator("gpus_per_replica")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("a share of one GPU, or a whole number of them")
        return value
