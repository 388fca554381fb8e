"""The settings of a benchmark."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator

from lmsys_ray.benchmark.shape import RANDOM
from lmsys_ray.benchmark.sides.registry import SIDES, VLLM
from lmsys_ray.checkpoints.sources import AS_NOTED, AS_TRAINED, read_scoring
from lmsys_ray.config.base import StrictModel
from lmsys_ray.engine.devices import CPU_BATCH_TOKENS, MOST_BATCH_TOKENS
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.storage.packaged import PREFIX, SMOLLM2
from lmsys_ray.validation import first_fault


class BenchmarkSettings(StrictModel):
    """The model, the rows and the sides; default sizes depend on whether there is a GPU."""

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
    reward_rows: PositiveInt | None = Field(None, description="rows with long prompts for the sides of reward models")
    encoder_rows: PositiveInt | None = Field(None, description="rows for the sides of an encoder")
    features: bool = Field(True, description="measure the LightGBM member's features too")

    @classmethod
    def checked_from(cls, values: dict[str, Any]) -> BenchmarkSettings:
        """Returns the settings with `values` in place of defaults; raises `UsageError` for one that is not accepted."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = first_fault(error)
            flag = fault.key.partition(".")[0].replace("_", "-")
            raise UsageError(f"--{flag}: {fault.refusal}") from None

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
            raise ValueError(f"{unknown[0]} is not one of {', '.join(SIDES)}")
        return value

    def member(self) -> ClassifierSettings:
        """Returns the classifier that is measured; it encodes rows as it was trained to read them.

        Raises `UsageError` where the model or the adapter is not found.
        """
        trained = {} if self.model_shape else read_scoring(self.model, self.adapter)
        asked = {key: trained[key] for key in (*AS_TRAINED, *AS_NOTED) if key in trained}
        named = {"model": self.model, "adapter": self.adapter, "max_length": self.max_length}
        return ClassifierSettings.model_validate({"kind": "classifier", **asked, **named})

    def row_count(self, cuda: bool) -> int:
        """Returns how many rows are scored; the default takes about ten seconds."""
        return self.rows or (128 if cuda else 16)

    def batch_rows(self, cuda: bool) -> int:
        """Returns how many rows the plain sides take at once."""
        return 16 if cuda else 4

    def slots(self, cuda: bool) -> int:
        """Returns how many slots a packed micro-batch has."""
        return self.batch_tokens or (MOST_BATCH_TOKENS if cuda else CPU_BATCH_TOKENS)

    def chosen_sides(self, cuda: bool) -> list[str]:
        """Returns the sides to run: those requested, else the defaults of the device, with vLLM if it is installed."""
        if self.sides is not None:
            return self.sides
        has_vllm = self.vllm_python is not None or find_spec("vllm") is not None
        return [name for name, side in SIDES.items() if side.by_default[cuda] and (name != VLLM or has_vllm)]
