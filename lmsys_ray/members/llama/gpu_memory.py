"""The GPUs of a replica: whether torch sees them, how much of their memory is its own, and what fits there."""

from __future__ import annotations

import os
from typing import Any, cast

import torch

from lmsys_ray.errors import UsageError

PRETEND_VARIABLE = "LMSYS_RAY_PRETEND_GPUS"
"""Set where GPUs are numbers told to Ray, as in tests: replicas that reserve some may then compute on the CPU."""

_CONTEXT_BYTES = 600 << 20
"""What a process keeps on a GPU outside torch's own memory: the CUDA context and the libraries' workspaces."""

_WEIGHT_SHARE = 0.95
"""Of the free memory: what weights may take at most. Activations of a small micro-batch need the rest."""

_OUT_OF_MEMORY = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")


def check_reserved(reserved: int) -> None:
    """Demands that torch sees the GPUs that Ray reserved for this process.

    Raises `UsageError` where it would compute on the CPU, or on fewer GPUs, without a word.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen >= reserved or os.environ.get(PRETEND_VARIABLE):
        return
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
    raise UsageError(
        f"device: a replica reserved {reserved} GPUs but torch {torch.__version__}, which {build}, sees {seen}; "
        "install a driver and a torch that fit each other, or set device to cpu"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Returns whether a device had too little memory; cuBLAS and cuDNN say so in errors of the general kind."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def total(gpus: float) -> int:
    """Returns the bytes of memory of the GPUs, or the part of one, that a replica has; 0 where there are none.

    What other processes hold makes no difference, so that replicas on like GPUs choose alike.
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
    told = [torch.cuda.mem_get_info(i) for i in _visible(gpus)]
    return [min(free, _own(gpus, memory)) for free, memory in told]


def keep_to_share(gpus: float) -> None:
    """Holds this process to its part of a GPU, so that those that share it each find the same room, in any order."""
    if gpus < 1 and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(_own(gpus, memory) / memory, 0)


def placement(gpus: float) -> dict[str, Any]:
    """Returns how transformers is to lay a model out: on the CPU, on one GPU, or in layers over several."""
    if not torch.cuda.is_available():
        return {"device_map": {"": "cpu"}}
    free = _free(gpus)
    if len(free) == 1:
        return {"device_map": {"": 0}}
    return {"device_map": "balanced", "max_memory": {i: int(bytes_ * _WEIGHT_SHARE) for i, bytes_ in enumerate(free)}}


def check_room(needed: float, gpus: float, model: str) -> None:
    """Demands that weights of `needed` bytes fit in a replica's GPUs; says nothing of a CPU.

    Raises `UsageError`, where transformers would move what does not fit to the CPU or to the disk.
    """
    if not torch.cuda.is_available():
        return
    room = sum(_free(gpus)) * _WEIGHT_SHARE
    if needed > room:
        raise UsageError(
            f"model: the weights of {model} take {needed / 2**30:.1f} GiB, and {gpus:g} GPUs have room for "
            f"{room / 2**30:.1f} GiB; give a replica more GPUs (gpus_per_replica), set quantization to int8 or nf4, or "
            "end what else runs there"
        )


def check_placed(model: torch.nn.Module, name: str) -> None:
    """Demands that no layer was moved to the CPU or to the disk for want of room on the GPUs."""
    placed = cast(dict[str, Any], getattr(model, "hf_device_map", None) or {})
    away = [layer for layer, device in placed.items() if str(device) in ("cpu", "disk", "meta")]
    if away and torch.cuda.is_available():
        raise UsageError(
            f"model: {name} does not fit in its GPUs, {len(away)} of its parts ({away[0]} and on) were left without; "
            "give a replica more GPUs (gpus_per_replica), or set quantization to int8 or nf4"
        )
