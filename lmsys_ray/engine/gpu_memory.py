"""The GPUs of a replica: whether torch sees them, how much of their memory it may use, and what fits there."""

from __future__ import annotations

import os
from typing import Any, cast

import torch

from lmsys_ray.errors import UsageError

PRETEND_VARIABLE = "LMSYS_RAY_PRETEND_GPUS"
"""Set where Ray is told of GPUs that do not exist, as in tests: replicas that reserve one may then compute on the
CPU."""

_CONTEXT_BYTES = 600 << 20
"""What a process takes on a GPU beside torch's allocations: the CUDA context and the workspaces of libraries."""

_WEIGHT_SHARE = 0.95
"""The largest share of the free memory for weights; activations of a small micro-batch need the rest."""

_OUT_OF_MEMORY = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")


def check_reserved(reserved: int) -> None:
    """Raises `UsageError` where torch does not see all GPUs that Ray reserved for this process.

    It would compute on the CPU, or on fewer GPUs, silently.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen >= reserved or os.environ.get(PRETEND_VARIABLE):
        return
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
    raise UsageError(
        f"device: a replica reserved {reserved} GPUs but torch {torch.__version__}, which {build}, sees {seen}; "
        "install a driver and a torch that match each other, or set device to cpu"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Returns whether a device ran out of memory; cuBLAS and cuDNN report that as a plain `RuntimeError`."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def total(gpus: float) -> int:
    """Returns the bytes of memory of a replica's GPUs, or of its share of one; 0 where there are none.

    What other processes hold is not subtracted, so that replicas on equal GPUs make equal choices.
    """
    if not torch.cuda.is_available():
        return 0
    return sum(_own(gpus, torch.cuda.get_device_properties(i).total_memory) for i in _visible(gpus))


def _visible(gpus: float) -> range:
    return range(min(max(1, int(gpus)), torch.cuda.device_count()))


def _own(gpus: float, memory: int) -> int:
    return memory if gpus >= 1 else max(0, int(memory * gpus) - _CONTEXT_BYTES)


def _free(gpus: float) -> list[int]:
    """Returns the bytes of each GPU that a replica may still take."""
    infos = [torch.cuda.mem_get_info(i) for i in _visible(gpus)]
    return [min(free, _own(gpus, memory)) for free, memory in infos]


def limit_memory(gpus: float) -> None:
    """Limits this process to its share of a GPU, so that replicas that share one find the same room in any order."""
    if gpus < 1 and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(_own(gpus, memory) / memory, 0)


def placement(gpus: float) -> dict[str, Any]:
    """Returns where transformers should place a model: on the CPU, on one GPU, or its layers on several."""
    if not torch.cuda.is_available():
        return {"device_map": {"": "cpu"}}
    free = _free(gpus)
    if len(free) == 1:
        return {"device_map": {"": 0}}
    return {"device_map": "balanced", "max_memory": {i: int(bytes_ * _WEIGHT_SHARE) for i, bytes_ in enumerate(free)}}


def check_room(needed: float, gpus: float, model: str) -> None:
    """Raises `UsageError` where weights of `needed` bytes do not fit in a replica's GPUs; a CPU is not checked.

    transformers would move what does not fit to the CPU or to the disk.
    """
    if not torch.cuda.is_available():
        return
    room = sum(_free(gpus)) * _WEIGHT_SHARE
    if needed > room:
        raise UsageError(
            f"model: the weights of {model} take {needed / 2**30:.1f} GiB, and {gpus:g} GPUs have room for "
            f"{room / 2**30:.1f} GiB; give a replica more GPUs (gpus_per_replica), set quantization to int8 or nf4, or "
            "stop what else runs there"
        )


def check_placed(model: torch.nn.Module, name: str) -> None:
    """Raises `UsageError` where a layer was moved to the CPU or to the disk because the GPUs were full."""
    placed = cast(dict[str, Any], getattr(model, "hf_device_map", None) or {})
    away = [layer for layer, device in placed.items() if str(device) in ("cpu", "disk", "meta")]
    if away and torch.cuda.is_available():
        raise UsageError(
            f"model: {name} does not fit in its GPUs, there was no room for {len(away)} parts, from {away[0]} on; "
            "give a replica more GPUs (gpus_per_replica), or set quantization to int8 or nf4"
        )
