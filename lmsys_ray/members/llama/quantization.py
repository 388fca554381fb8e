"""How a base model is quantized: by bitsandbytes while it loads, as it is stored, or afterwards by this package."""

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedConfig

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices
from lmsys_ray.members.llama.sources import trained_dtype


def choose(config: PreTrainedConfig, settings: LlamaSettings) -> devices.Quantization:
    """Returns what `settings` mean for a model of this config on this device."""
    if getattr(config, "quantization_config", None) is not None:
        if settings.quantization != "auto":
            raise UsageError(f"quantization: {settings.model} is stored quantized already; set quantization to auto")
        return "stored"
    with torch.device("meta"):
        parameters = AutoModelForSequenceClassification.from_config(config).num_parameters()
    memory = devices.gpu_memory(settings.gpus_per_replica)
    return devices.choose_quantization(settings.quantization, parameters, memory)


def loading_arguments(
    config: PreTrainedConfig, quantization: devices.Quantization, settings: LlamaSettings
) -> dict[str, Any]:
    """Returns how `from_pretrained` is to quantize; empty where the weights are loaded in 16 or 32 bits."""
    if quantization == "stored":
        return {"quantization_config": config.quantization_config}
    if quantization not in ("int8", "nf4"):
        return {}
    head = ["score"]  # bitsandbytes would quantize it too
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=head)}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
        llm_int8_skip_modules=head,
    )
    return {"quantization_config": four_bits}
