"""Converts a raw torch state dict of a PEFT model to the PEFT directory that a classifier loads.

Loaded with `strict=False`, as in notebooks, such a dict may silently fill nothing. Here its adapter weights must be
exactly those of the model that the base's config and the LoRA settings describe.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoModelForSequenceClassification

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.checks import HEAD, check_adapter
from lmsys_ray.checkpoints.config_checks import ADAPTER_CONFIG, check_meaning, read_json
from lmsys_ray.checkpoints.heads import LINEAR
from lmsys_ray.checkpoints.reading import library_errors
from lmsys_ray.checkpoints.sources import model_directory
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.quiet import quiet_libraries
from lmsys_ray.storage.directories import atomic_directory

_ADAPTER_NAME = re.compile(r"(\.lora_[A-Za-z_]+|\.modules_to_save)\.default(?=\.|$)")


class LoraSettings(BaseModel):
    """The LoRA that the state dict was trained with; the defaults are the notebook's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: PositiveInt = 16
    alpha: PositiveFloat = 32
    dropout: NonNegativeFloat = 0.1
    bias: Literal["none"] = "none"
    target_modules: list[str] = Field(default=["o_proj", "v_proj"], min_length=1)

    def peft(self, base: str) -> LoraConfig:
        """Returns these settings as PEFT's, for the model `base`."""
        alpha = int(self.alpha) if self.alpha == int(self.alpha) else self.alpha
        return LoraConfig(
            task_type=TaskType.SEQ_CLS,
            base_model_name_or_path=base,
            r=self.r,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT divides by r: fractions are fine
            lora_dropout=self.dropout,
            bias=self.bias,
            target_modules=self.target_modules,
            inference_mode=True,
        )


class ImportSettings(BaseModel):
    """What `--set` of the import job can change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora: LoraSettings = Field(default_factory=LoraSettings)


def import_state_dict(file: Path, base: str, lora: LoraSettings, target: Path) -> int:
    """Writes the adapter in the state dict `file` to the new PEFT directory `target`; returns its number of weights.

    `base` is the base model, as in the setting `model` of a classifier; only its config is read. Raises `UsageError` or
    `RunError` where the adapter does not fit that model exactly, or was never trained.
    """
    weights = adapter_weights(read_state_dict(file))
    if not any(".lora_" in key for key in weights):
        raise RunError(
            f"--state-dict: {file} holds no LoRA weights (no key with .lora_ in it); is it the base model's?"
        )
    config = lora.peft(base)
    with quiet_libraries():
        check_adapter(weights, _skeleton(base, config), str(file), head_optional=False)
        with atomic_directory(target) as aside:
            config.save_pretrained(str(aside))
            save_file(weights, aside / "adapter_model.safetensors", metadata={"format": "pt"})
    return sum(weight.numel() for weight in weights.values())


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Reads tensors by name, memory-mapped; code in the file is not run.

    Raises `UsageError` where there is no file, `RunError` where it is not a state dict.
    """
    if not file.is_file():
        raise UsageError(f"--state-dict: {file} does not exist; give a file that torch.save wrote")
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise RunError(
            f"--state-dict: {file} is not a state dict that can be read safely ({first_line(error, 160)})"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        shown = ", ".join(map(str, list(state)[:3])) if isinstance(state, dict) else type(state).__name__
        raise RunError(
            f"--state-dict: {file} is not a mapping of names to tensors (it holds {shown}); save the dict alone"
        )
    return state


def adapter_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the adapter's weights under the names that PEFT saves, however the head was stored."""
    found = {key: value for key, value in state.items() if ".lora_" in key or ".modules_to_save." in key}
    plain = [key for key in state if key == HEAD or key.endswith(f".{HEAD}")]
    if plain and not any(".modules_to_save." in key for key in found):
        found[f"base_model.model.{HEAD}"] = state[plain[0]]
    # Mapped tensors, and those that share storage, must be copied: safetensors refuses shared memory.
    return {_saved_name(key): value.detach().contiguous().clone() for key, value in found.items()}


def _saved_name(key: str) -> str:
    return _ADAPTER_NAME.sub(lambda match: "" if match[1] == ".modules_to_save" else match[1], key)


def _skeleton(base: str, lora: LoraConfig) -> dict[str, torch.Tensor]:
    """Returns the adapter's weights of the model that `base` and `lora` describe, on the meta device."""
    directory = model_directory(base, ("config.json", ADAPTER_CONFIG))
    content = read_json(directory, base)
    with library_errors(
        f"--model: {base} is not a model that the adapter can be put on", "name the model it was trained on"
    ):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise UsageError(
                f"--model: transformers has no sequence classifier for {config.model_type}, that of {base}"
            )
        check_meaning(content, config, base, Wanted.three_labels(), LINEAR)
        config.num_labels = len(CLASSES)
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
            return get_peft_model_state_dict(get_peft_model(model, lora))
