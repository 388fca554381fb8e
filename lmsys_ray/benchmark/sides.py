"""Which sides there are, what each computes in, and the process that runs one: `python -m lmsys_ray.benchmark.sides`.

Every side is imported only in its own process, so that none pays for another's libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmsys_ray.benchmark.task import Task
from lmsys_ray.benchmark.worker import CLOCKS, Side, host_memory, serve


@dataclass(frozen=True)
class SideKind:
    """One line of the table."""

    title: str
    numbers: tuple[str, str]
    """The format of the products' operands on a CPU and on a GPU, against whose measured peak it is held.

    `native` is what the device computes a model in by default: float32 on a CPU, 16 bits on a GPU.
    """
    by_default: tuple[bool, bool]
    """Whether it runs unasked on a CPU and on a GPU."""
    changes: dict[str, Any] = field(default_factory=dict)
    """For this package's own sides: what differs from the member's default settings."""


BASELINE = "notebook"
OWN = "packed"
REFERENCE = "reference"
VLLM = "vllm"
PEAK = "peak"

_NATIVE = ("native", "native")

SIDES: dict[str, SideKind] = {
    BASELINE: SideKind("notebook's loop: padded to max_length, 4 rows", ("native", "int8"), (True, True)),
    "dynamic": SideKind("transformers, padded to the batch's longest row", _NATIVE, (True, True)),
    "sorted": SideKind("transformers, the same on sorted rows", _NATIVE, (True, True)),
    VLLM: SideKind("vLLM, pooling runner", _NATIVE, (True, True)),
    OWN: SideKind("ours, packed", _NATIVE, (True, True), {"quantization": "none"}),
    "bfloat16": SideKind("ours, bfloat16", ("bfloat16", "bfloat16"), (False, False), {"dtype": "bfloat16"}),
    "int8_dynamic": SideKind("ours, int8 products", ("int8", "int8"), (False, True), {"quantization": "int8_dynamic"}),
    "fp8": SideKind("ours, fp8 products", ("fp8", "fp8"), (False, True), {"quantization": "fp8"}),
    "int8": SideKind("ours, bitsandbytes int8", ("int8", "int8"), (False, True), {"quantization": "int8"}),
    "nf4": SideKind("ours, bitsandbytes nf4", _NATIVE, (False, True), {"quantization": "nf4"}),
}


FEATURES = {
    "features:dense": "scikit-learn and pandas, dense batches of 1,000 rows",
    "features:sparse": "ours, sparse",
}
"""The sides that compute the features of the LightGBM member."""


JOB = {
    "job:alone": "the scorer alone, called in one process",
    "job:distributed": "the whole job, distributed",
}
"""The sides that tell what the job costs over its scorer."""


def peak_of(name: str, cuda: bool) -> str:
    """Returns the side that measures the products which the side `name` is held against."""
    from lmsys_ray.members.llama.devices import choose_dtype

    numbers = SIDES[name].numbers[cuda]
    return f"{PEAK}:{str(choose_dtype('auto')).removeprefix('torch.') if numbers == 'native' else numbers}"


def load(task: Task, name: str) -> Side:
    """Loads a side by its name; `peak:NUMBERS` measures the products of the model in a number format."""
    if name.startswith(f"{PEAK}:"):
        from lmsys_ray.benchmark import peak_side

        return peak_side.load(task, name.partition(":")[2])
    if name.startswith("features:"):
        from lmsys_ray.benchmark import features_side

        return features_side.load(task, name.partition(":")[2])
    if name in JOB:
        from lmsys_ray.benchmark import job_side

        return job_side.load(task, name.partition(":")[2])
    if name == VLLM:
        from lmsys_ray.benchmark import vllm_side

        return vllm_side.load(task)
    if name in (BASELINE, "dynamic", "sorted", REFERENCE):
        from lmsys_ray.benchmark import plain_side

        return plain_side.load(task, name)  # type: ignore[arg-type]
    from lmsys_ray.benchmark import own_side

    return own_side.load(task, **SIDES[name].changes)


def memory_meter() -> Callable[[], int]:
    """Returns what tells the bytes that this process holds at most; on a GPU, what its use of the device has grown to.

    PyTorch's allocator keeps what it once took, so that the use after a run is the most that the run needed.
    """
    import torch

    if not torch.cuda.is_available():
        return host_memory
    before = torch.cuda.mem_get_info()[0]
    return lambda: before - torch.cuda.mem_get_info()[0]


if __name__ == "__main__":
    folder, side_name = sys.argv[1:]
    the_task = Task.load(folder)
    serve(lambda: load(the_task, side_name), memory_meter(), CLOCKS[the_task.clock])
