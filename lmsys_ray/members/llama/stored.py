"""Checkpoints whose weights are stored quantized: what transformers needs to load them as classifiers, and their head.

A language model stored by bitsandbytes, GPTQ, AWQ and the like names the layers that stay plain, its own `lm_head` for
one. The head of a classifier, `score`, is not in it, and would become a quantized layer without weights.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer
from transformers.utils.quantization_config import QuantizationMethod

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices, gpu_memory
from lmsys_ray.members.llama.depth import is_behind
from lmsys_ray.members.llama.quiet import first_line

_SKIP_KEYS = {
    "bitsandbytes": "llm_int8_skip_modules",
    "compressed-tensors": "ignore",
    "hqq": "skip_modules",
    "quark": "exclude",
    "aqlm": "linear_weights_not_to_quantize",
}
"""By which name a method lists the modules that stay plain, where it is not `modules_to_not_convert`."""

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
"""What computes with weights of a method, by its names on PyPI; transformers itself speaks of the others."""


class Tensor(NamedTuple):
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    bytes: int


def description(config: PreTrainedConfig) -> dict[str, Any] | None:
    """Returns how a checkpoint says that it is quantized, as it stands in its config.json; None where it is plain."""
    found = getattr(config, "quantization_config", None)
    return found or getattr(config.get_text_config(), "quantization_config", None)


def method(stored: dict[str, Any]) -> str:
    """Returns by which method a checkpoint is quantized; old ones of bitsandbytes do not name it."""
    bitsandbytes = stored.get("load_in_8bit") or stored.get("load_in_4bit")
    return "bitsandbytes" if bitsandbytes else str(stored.get("quant_method"))


def setting(stored: dict[str, Any]) -> str | None:
    """Returns which value of the setting `quantization` means what is stored; None where only `auto` does."""
    if method(stored) != "bitsandbytes":
        return None
    if stored.get("load_in_8bit"):
        return "int8"
    return "nf4" if stored.get("bnb_4bit_quant_type") == "nf4" else None


def prepare(config: PreTrainedConfig, directory: Path, settings: LlamaSettings) -> None:
    """Changes what `config` says of a checkpoint stored quantized so that it loads as a classifier.

    The head stays plain, unless it is stored quantized itself. What bitsandbytes computes in is the setting `dtype`,
    as for every other model: the file names what its maker's GPU was good at.

    Raises `UsageError` for a method that is unknown, or that cannot run here; it names the package to install.
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


def _check_backend(stored: dict[str, Any], by: str, settings: LlamaSettings) -> None:
    """Demands that what transformers needs for the method is installed, and has the device that it needs."""
    failure, undone = None, False
    try:
        quantizer = AutoHfQuantizer.from_config(dict(stored), pre_quantized=True)
        quantizer.validate_environment(**gpu_memory.placement(settings.gpus_per_replica))
        undone = getattr(quantizer.quantization_config, "dequantize", False)
    except (ImportError, RuntimeError, ValueError, TypeError, KeyError) as error:
        failure = first_line(error).rstrip(".") or type(error).__name__
    missing = [] if undone else [package for package in _PACKAGES.get(by, []) if not _installed(package)]
    told = f"model: {settings.model} is stored quantized by {by}, which"
    if missing:
        raise UsageError(f"{told} needs packages that are not installed; run pip install {' '.join(missing)}")
    if failure:
        raise UsageError(f"{told} cannot run here ({failure}); mend that, or name a checkpoint that is not quantized")


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def packs_matter(stored: dict[str, Any]) -> bool:
    """Returns whether what a row gets depends on what else is in its micro-batch, by more than rounding.

    int8 of bitsandbytes takes columns of outliers out of a whole micro-batch; compressed-tensors may scale activations
    by the largest one in it.
    """
    if setting(stored) == "int8":
        return True
    groups = (stored.get("config_groups") or {}).values()
    inputs = [group.get("input_activations") or {} for group in groups if isinstance(group, dict)]
    return any(given.get("dynamic") and given.get("strategy") == "tensor" for given in inputs)


def tensors(directory: Path, model: str) -> dict[str, Tensor]:
    """Returns what the safetensors files of a model hold, by name, as their headers say; no weight is read.

    Raises `UsageError` for a file that is damaged.
    """
    index = directory / "model.safetensors.index.json"
    found: dict[str, Tensor] = {}
    try:
        mapped = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else {}
        names = sorted(set(mapped.values())) or ["model.safetensors"]
        for file in (directory / name for name in names if (directory / name).is_file()):
            with file.open("rb") as stream:
                header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            header.pop("__metadata__", None)
            for name, told in header.items():
                start, stop = told["data_offsets"]
                found[name] = Tensor(told["dtype"], stop - start)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"model: the weights of {model} cannot be read ({first_line(error)})") from None
    return found


def head_is_quantized(stored: dict[str, Tensor]) -> bool:
    """Returns whether the head of a classifier is stored in another form than as plain weights."""
    head = {name.removeprefix("score."): tensor for name, tensor in stored.items() if name.startswith("score.")}
    plain = set(head) <= {"weight", "bias"} and all(t.dtype in ("F64", "F32", "F16", "BF16") for t in head.values())
    return not plain


def needed_bytes(stored: dict[str, Tensor], layers: int | None) -> int:
    """Returns how many bytes the backbone and the head of a classifier take as they are stored."""
    needed = (name for name in stored if not name.startswith("lm_head.") and not is_behind(name, layers))
    return sum(stored[name].bytes for name in needed)


def is_quantized(model: PreTrainedModel) -> bool:
    """Returns whether a loaded model is still quantized; some methods are undone where no GPU computes in them."""
    return bool(getattr(model, "is_quantized", False))


@torch.no_grad()
def try_once(model: PreTrainedModel, name: str) -> None:
    """Runs one token through a model whose weights a library keeps, which is when kernels are looked for.

    compressed-tensors unpacks weights then, and in a call of the whole classifier only. bitsandbytes is left alone: it
    needs no trial, and puts its weights in another order, before an adapter has looked at them.

    Raises `UsageError` where the library cannot compute.
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
    """Returns a head as a plain linear layer of float32; one that is quantized gives its weights away as its outputs.

    Its outputs of the unit vectors, of the type and on the device of `like` [any, hidden], are the columns of its
    weights, as far as it rounds nothing more.
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
