"""What a benchmark is asked to measure."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator

from lmsys_ray.benchmark.shape import RANDOM
from lmsys_ray.benchmark.sides import SIDES, VLLM
from lmsys_ray.config import LlamaSettings, Strict
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.devices import CPU_BATCH_TOKENS, MOST_BATCH_TOKENS
from lmsys_ray.members.llama.sources import AS_NOTED, AS_TRAINED, read_scoring
from lmsys_ray.resources import PREFIX, SMOLLM2


class BenchmarkSettings(Strict):
    """The model, the rows and the sides; where a size is not given, it depends on whether there is a GPU."""

    input: list[str] = Field([f"{PREFIX}sample.csv"], min_length=1)
    model: str = f"{PREFIX}{SMOLLM2}"
    adapter: str | None = f"{PREFIX}{SMOLLM2}-lora"
    model_shape: str | None = Field(None, description="a random model of these sizes takes the place of `model`")
    max_length: int = Field(512, ge=16)
    rows: PositiveInt | None = Field(None, description="rows to score, of lengths spread like the input's")
    repeats: PositiveInt = 3
    sides: list[str] | None = None
    threads: PositiveInt | None = Field(None, description="CPU cores; all that the process may use by default")
    clock: Literal["wall", "processor"] = Field("wall", description="which seconds count")
    batch_tokens: PositiveInt | None = Field(None, description="slots of a packed micro-batch")
    checked: PositiveInt = Field(16, description="rows that are compared with fp32")
    vllm_python: str | None = Field(None, description="the Python of an environment with vLLM")
    job_rows: int | None = Field(None, ge=128, description="rows of a whole job, run beside its scorer alone")
    features: bool = Field(True, description="measure the LightGBM member's features too")

    @classmethod
    def checked_from(cls, values: dict[str, Any]) -> BenchmarkSettings:
        """Returns the settings with `values` laid over the defaults; raises `UsageError` for one not accepted."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            flag = str(fault["loc"][0]).replace("_", "-")
            accepted = fault["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{flag}: {fault['input']!r} is not accepted: {accepted}") from None

    @field_validator("model_shape")
    @classmethod
    def _known_shape(cls, value: str | None) -> str | None:
        if value is not None and value not in RANDOM:
            raise ValueError(f"one of {', '.join(RANDOM)}")
        return value

    @field_validator("sides")
    @classmethod
    def _known_sides(cls, value: list[str] | None) -> list[str] | None:
        if unknown := [name for name in value or [] if name not in SIDES]:
            raise ValueError(f"{unknown[0]} is none of {', '.join(SIDES)}")
        return value

    def member(self) -> LlamaSettings:
        """Returns the Llama member that is measured: it encodes the rows, as the adapter was trained to read them.

        Raises `UsageError` where the adapter cannot be had.
        """
        trained = read_scoring(self.adapter) if self.adapter and not self.model_shape else {}
        asked = {key: trained[key] for key in (*AS_TRAINED, *AS_NOTED) if key in trained}
        named = {"model": self.model, "adapter": self.adapter, "max_length": self.max_length}
        return LlamaSettings.model_validate({"kind": "llama", **asked, **named})

    def row_count(self, cuda: bool) -> int:
        """Returns how many rows are scored, by default as many as take some ten seconds."""
        return self.rows or (128 if cuda else 16)

    def batch_rows(self, cuda: bool) -> int:
        """Returns how many rows the plain sides take at once."""
        return 16 if cuda else 4

    def slots(self, cuda: bool) -> int:
        """Returns how many slots a packed micro-batch has."""
        return self.batch_tokens or (MOST_BATCH_TOKENS if cuda else CPU_BATCH_TOKENS)

    def chosen_sides(self, cuda: bool) -> list[str]:
        """Returns the sides to run: those asked for, else those that suit the device; vLLM where it is installed."""
        if self.sides is not None:
            return self.sides
        has_vllm = self.vllm_python is not None or find_spec("vllm") is not None
        return [name for name, side in SIDES.items() if side.by_default[cuda] and (name != VLLM or has_vllm)]
