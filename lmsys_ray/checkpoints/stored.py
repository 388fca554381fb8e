"""Checkpoints whose weights are stored quantized, loaded as classifiers.

A language model stored by bitsandbytes, GPTQ, AWQ and the like lists the layers that stay plain, such as its `lm_head`.
The head of a classifier, `score`, is not listed and would become a quantized layer without weights.
Measurements: docs/lab/quantized.md.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer
from transformers.utils.quantization_config import QuantizationMethod

from lmsys_ray.checkpoints.depth import is_dropped_block
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.weight_files import Tensor, tensors
from lmsys_ray.engine import devices, gpu_memory
from lmsys_ray.errors import UsageError, first_line

_SKIP_KEYS = {
    "bitsandbytes": "llm_int8_skip_modules",
    "compressed-tensors": "ignore",
    "hqq": "skip_modules",
    "quark": "exclude",
    "aqlm": "linear_weights_not_to_quantize",
}
"""The key under which a method lists the modules that stay plain, if it is not `modules_to_not_convert`."""

_PACKAGES = {
    "aqlm": ["aqlm"],
    "auto-round": ["auto-round"],
    "awq": ["gptqmodel"],
    "bitsandbytes": ["bitsandbytes"],
    "compressed-tensors": ["compressed-tensors"],
    "eetq": ["kernels"],
    "fouroversix": ["fouroversix"],
    "fp8": ["kernels"],
    "gptq": ["optimum", "gptqmodel"],
    "hqq": ["hqq"],
    "mxfp8": ["kernels"],
    "quanto": ["optimum-quanto"],
    "quark": ["amd-quark"],
    "sinq": ["sinq"],
    "torchao": ["torchao"],
    "vptq": ["vptq"],
}
"""The packages on PyPI that compute with the weights of a method; of others, transformers gives the names itself."""


def description(config: PreTrainedConfig) -> dict[str, Any] | None:
    """Returns the quantization config of a checkpoint, as in its config.json; None where it is plain."""
    found = getattr(config, "quantization_config", None)
    return found or getattr(config.get_text_config(), "quantization_config", None)


def method(stored: dict[str, Any]) -> str:
    """Returns the method by which a checkpoint is quantized; old ones by bitsandbytes do not name it."""
    bitsandbytes = stored.get("load_in_8bit") or stored.get("load_in_4bit")
    return "bitsandbytes" if bitsandbytes else str(stored.get("quant_method"))


def setting(stored: dict[str, Any]) -> str | None:
    """Returns the value of the setting `quantization` that means what is stored; None where only `auto` does."""
    if method(stored) != "bitsandbytes":
        return None
    if stored.get("load_in_8bit"):
        return "int8"
    return "nf4" if stored.get("bnb_4bit_quant_type") == "nf4" else None


def prepare(config: PreTrainedConfig, directory: Path, settings: ModelSettings) -> None:
    """Changes the `config` of a checkpoint stored quantized so that it loads as a classifier.

    The head stays plain, unless it is stored quantized itself. bitsandbytes computes in the setting `dtype`, as for
    every other model: the file names the type that suited its maker's GPU. Raises `UsageError` for a method that is
    unknown, or that cannot run here, with the package to install.
    """
    stored = cast(dict[str, Any], description(config))
    by = method(stored)
    known = set(AUTO_QUANTIZER_MAPPING) | {"bitsandbytes"}
    if by not in known:
        raise UsageError(
            f"model: {settings.model} is stored quantized by {by}, which transformers does not know; "
            f"name a checkpoint that is not quantized, or quantized by one of {', '.join(sorted(_PACKAGES))}"
        )
    if not head_is_quantized(tensors(directory, settings.model)):
        _keep_plain("score", stored, by)
    if by == "bitsandbytes":
        stored["bnb_4bit_compute_dtype"] = str(devices.choose_dtype(settings.dtype)).removeprefix("torch.")
    _check_backend(stored, by, settings)


def _keep_plain(module: str, stored: dict[str, Any], by: str) -> None:
    key = _SKIP_KEYS.get(by, "modules_to_not_convert")
    name = f"{module}.weight" if by == "aqlm" else module
    stored[key] = [*(stored.get(key) or stored.get("ignored_layers") or []), name]


def _check_backend(stored: dict[str, Any], by: str, settings: ModelSettings) -> None:
    """Checks that the packages and the device that transformers needs for the method are there."""
    failure, undone = None, False
    try:
        quantizer = AutoHfQuantizer.from_config(dict(stored), pre_quantized=True)
        quantizer.validate_environment(**gpu_memory.placement(settings.gpus_per_replica))
        undone = getattr(quantizer.quantization_config, "dequantize", False)
    except (ImportError, RuntimeError, ValueError, TypeError, KeyError) as error:
        failure = first_line(error).rstrip(".") or type(error).__name__
    missing = [] if undone else [package for package in _PACKAGES.get(by, []) if not _installed(package)]
    subject = f"model: {settings.model} is stored quantized by {by}, which"
    if missing:
        raise UsageError(f"{subject} needs packages that are not installed; run pip install {' '.join(missing)}")
    if failure:
        raise UsageError(
            f"{subject} cannot run here ({failure}); mend that, or name a checkpoint that is not quantized"
        )


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def depends_on_batch(stored: dict[str, Any]) -> bool:
    """Returns whether scores depend on the rest of the micro-batch by more than rounding.

    int8 of bitsandbytes separates columns of outliers across a whole micro-batch; compressed-tensors may scale
    activations by the largest one in it.
    """
    if setting(stored) == "int8":
        return True
    groups = (stored.get("config_groups") or {}).values()
    inputs = [group.get("input_activations") or {} for group in groups if isinstance(group, dict)]
    return any(given.get("dynamic") and given.get("strategy") == "tensor" for given in inputs)


def head_is_quantized(stored: dict[str, Tensor]) -> bool:
    """Returns whether the head of a classifier is stored in another form than plain weights."""
    head = {name.removeprefix("score."): tensor for name, tensor in stored.items() if name.startswith("score.")}
    plain = set(head) <= {"weight", "bias"} and all(t.dtype in ("F64", "F32", "F16", "BF16") for t in head.values())
    return not plain


def needed_bytes(stored: dict[str, Tensor], layers: int | None) -> int:
    """Returns how many bytes the backbone and the head of a classifier take as stored."""
    needed = (name for name in stored if not name.startswith("lm_head.") and not is_dropped_block(name, layers))
    return sum(stored[name].bytes for name in needed)


def is_quantized(model: PreTrainedModel) -> bool:
    """Returns whether a loaded model is still quantized; some methods dequantize where no GPU computes in them."""
    return bool(getattr(model, "is_quantized", False))


@torch.no_grad()
def try_once(model: PreTrainedModel, name: str) -> None:
    """Runs one token through a model whose weights belong to a library, which then looks for its kernels.

    compressed-tensors unpacks weights then, and only in a call of the whole classifier. bitsandbytes is skipped: it
    needs no trial, and would rearrange weights before an adapter has seen them. Raises `UsageError` where the library
    cannot compute.
    """
    by = QuantizationMethod(model.quantization_method).value
    if by == "bitsandbytes":
        return
    try:
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    except (ImportError, OSError, RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error).rstrip(".") or type(error).__name__
        raise UsageError(
            f"model: {name} is stored quantized by {by}, which does not compute here "
            f"({reason}); mend that, or name a checkpoint that is not quantized"
        ) from None


@torch.no_grad()
def plain_head(head: nn.Module, like: torch.Tensor) -> nn.Module:
    """Returns a head as a plain float32 linear layer.

    The weights of a quantized head are read from its outputs for unit vectors, of the type and on the device of `like`
    [any, hidden]; this is exact up to its own rounding.
    """
    if type(head) is nn.Linear and head.weight.is_floating_point():
        return head.float()
    outputs = head(torch.eye(like.shape[-1], device=like.device, dtype=like.dtype)).float()
    bias = getattr(head, "bias", None)
    linear = nn.Linear(like.shape[-1], outputs.shape[1], bias=bias is not None, device=outputs.device)
    if bias is not None:
        linear.bias.copy_(bias.float())
        outputs = outputs - linear.bias
    linear.weight.copy_(outputs.T)
    return linear.requires_grad_(False)
