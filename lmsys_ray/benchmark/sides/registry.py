"""The sides of the benchmark and their number formats; `python -m` this module runs one.

Each side is imported only in its own process, so that it does not load the libraries of others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lmsys_ray.benchmark.side_process import CLOCKS, Side, host_memory, serve
from lmsys_ray.benchmark.task import BenchmarkTask


@dataclass(frozen=True)
class SideKind:
    """One line of the table."""

    title: str
    numbers: tuple[str, str]
    """The format of the operands of products on a CPU and on a GPU; the side is compared with its measured peak.

    `native` is the default of the device: float32 on a CPU, 16 bits on a GPU.
    """
    by_default: tuple[bool, bool]
    """Whether it runs by default on a CPU and on a GPU."""
    changes: dict[str, Any] = field(default_factory=dict)
    """For the sides of this package: changes to the default settings of the member."""


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
"""The sides that measure the overhead of the job over its scorer."""


REWARD = {
    "reward:apart": "a call for each response",
    "reward:together": "ours, both responses in one call",
}
"""The sides that measure what it saves to compute the prompt of both sequences of a row once."""


ENCODER = {
    "encoder:padded": "every row padded to 512 tokens",
    "encoder:sorted": "ours, sorted rows with a mask",
}
"""The sides that measure what sorted micro-batches save an encoder."""


def peak_of(name: str, cuda: bool) -> str:
    """Returns the side that measures the products with which the side `name` is compared."""
    from lmsys_ray.engine.devices import choose_dtype

    numbers = SIDES[name].numbers[cuda]
    return f"{PEAK}:{str(choose_dtype('auto')).removeprefix('torch.') if numbers == 'native' else numbers}"


def load(task: BenchmarkTask, name: str) -> Side:
    """Loads a side by its name; `peak:NUMBERS` measures the products of the model in a number format."""
    if name.startswith(f"{PEAK}:"):
        from lmsys_ray.benchmark.sides import matmul_peak

        return matmul_peak.load(task, name.partition(":")[2])
    if name.startswith("features:"):
        from lmsys_ray.benchmark.sides import features

        return features.load(task, name.partition(":")[2])
    if name in JOB:
        from lmsys_ray.benchmark.sides import job

        return job.load(task, name.partition(":")[2])
    if name in REWARD:
        from lmsys_ray.benchmark.sides import reward

        return reward.load(task, name.partition(":")[2])
    if name in ENCODER:
        from lmsys_ray.benchmark.sides import encoder

        return encoder.load(task, name.partition(":")[2])
    if name == VLLM:
        from lmsys_ray.benchmark.sides import vllm

        return vllm.load(task)
    if name in (BASELINE, "dynamic", "sorted", REFERENCE):
        from lmsys_ray.benchmark.sides import transformers

        return transformers.load(task, name)  # type: ignore[arg-type]
    from lmsys_ray.benchmark.sides import packed

    return packed.load(task, **SIDES[name].changes)


def memory_meter() -> Callable[[], int]:
    """Returns a function that gives the peak memory of this process in bytes, or its use of the GPU if there is one.

    PyTorch's allocator keeps what it once took, so that the use after a run is the peak of the run.
    """
    import torch

    if not torch.cuda.is_available():
        return host_memory
    before = torch.cuda.mem_get_info()[0]
    return lambda: before - torch.cuda.mem_get_info()[0]


if __name__ == "__main__":
    folder, side_name = sys.argv[1:]
    the_task = BenchmarkTask.load(folder)
    serve(lambda: load(the_task, side_name), memory_meter(), CLOCKS[the_task.clock])
