"""A LoRA adapter of PEFT: read, checked, and put on a base model."""

from pathlib import Path
from typing import cast

import torch
from peft import (
    LoraConfig,
    LoraModel,
    PeftConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import checks
from lmsys_ray.members.llama.quiet import first_line
from lmsys_ray.members.llama.sources import adapter_directory, check_as_trained, read_scoring


def with_adapter(
    model: PreTrainedModel, settings: LlamaSettings, name: str, head_found: bool, merge: bool
) -> PreTrainedModel:
    """Puts the LoRA adapter `name` on `model`, merged where `merge`."""
    directory = adapter_directory(name)
    noted = read_scoring(name)
    check_as_trained(noted, settings)
    config, weights = _read_adapter(directory, name)
    try:
        # Merged in float32; beside a quantized base the adapter computes in the base's own type.
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=merge)
    except ValueError as error:
        raise UsageError(f"adapter: {name} does not fit the model, it was made for another ({error})") from None
    own = get_peft_model_state_dict(wrapped)
    head_only = noted.get(checks.HEAD_ONLY) is True
    checks.check_adapter(weights, own, name, head_found, head_only)
    set_peft_model_state_dict(wrapped, {**own, **weights})
    tuner = cast(LoraModel, wrapped.base_model)
    return cast(PreTrainedModel, tuner.merge_and_unload() if merge else tuner.model)


def _read_adapter(directory: Path, name: str) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    file = directory / "adapter_model.safetensors"
    if not (directory / "adapter_config.json").is_file() or not file.is_file():
        raise UsageError(f"adapter: {name} lacks adapter_config.json or adapter_model.safetensors; save it with PEFT")
    try:
        config, weights = PeftConfig.from_pretrained(str(directory)), load_file(file)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise UsageError(f"adapter: {name} cannot be read ({first_line(error)})") from None
    if not isinstance(config, LoraConfig):
        raise UsageError(f"adapter: {name} is of the type {config.peft_type}; only LoRA is supported")
    if config.task_type != TaskType.SEQ_CLS:
        raise UsageError(f"adapter: {name} was made for {config.task_type}, not for classification (SEQ_CLS)")
    return config, weights
