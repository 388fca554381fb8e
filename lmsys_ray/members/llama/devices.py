"""Which device, number type and quantization a replica uses, and how many cores."""

import os
from typing import Any, Literal

import torch

Quantization = Literal["none", "int8", "nf4"]

# Weights may take this share of the memory; activations of a micro-batch and the libraries need the rest.
_WEIGHT_SHARE = 0.8
_BYTES_PER_WEIGHT = {"none": 2.0, "int8": 1.1, "nf4": 0.65}


def use_cores(threads: int | None = None) -> int:
    """Lets torch compute on `threads` cores, by default on all that this process may use; returns their number.

    Ray sets OMP_NUM_THREADS to the CPUs that an actor reserves, which is 1 or none for the one that holds the model.
    """
    cores = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores


def choose_dtype(setting: str) -> torch.dtype:
    """Returns the type of weights and activations: bfloat16 where the GPU computes in it, float32 without one."""
    if setting != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[setting]
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16  # T4 has only float16


def choose_quantization(setting: str, parameters: int, memory: int) -> Quantization:
    """Returns the quantization of a model of `parameters` weights on GPUs of `memory` bytes in all (0: no GPU).

    16 bits wherever they fit: bitsandbytes saves memory, not time.
    """
    if setting in ("none", "int8", "nf4"):
        return setting  # type: ignore[return-value]
    choices: tuple[Quantization, ...] = ("none", "int8", "nf4")
    fitting = (c for c in choices if parameters * _BYTES_PER_WEIGHT[c] <= memory * _WEIGHT_SHARE)
    return next(fitting, "nf4") if memory else "none"


def gpu_memory(gpus: float) -> int:
    """Returns the bytes of memory of the GPUs, or the part of one, that a replica has; 0 where there are none."""
    if not torch.cuda.is_available():
        return 0
    visible = range(min(max(1, int(gpus)), torch.cuda.device_count()))
    return int(sum(torch.cuda.get_device_properties(i).total_memory for i in visible) * min(1.0, gpus))


def placement(gpus: float) -> dict[str, Any]:
    """Returns how transformers is to lay a model out: on the CPU, on one GPU, or in layers over several."""
    if not torch.cuda.is_available():
        return {"device_map": {"": "cpu"}}
    count = min(int(gpus), torch.cuda.device_count())
    if count <= 1:
        return {"device_map": {"": 0}}
    limits = {i: int(torch.cuda.get_device_properties(i).total_memory * _WEIGHT_SHARE) for i in range(count)}
    return {"device_map": "balanced", "max_memory": limits}
