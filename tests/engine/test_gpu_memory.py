"""What a replica may take of its GPUs, and what it says where they are not there or too small."""

from types import SimpleNamespace

import pytest
import torch

from lmsys_ray.engine import gpu_memory
from lmsys_ray.errors import UsageError

GIB = 1 << 30
CONTEXT = 600 << 20


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs of 16 GiB; the list holds what is free on each, in bytes."""
    free = [16 * GIB, 16 * GIB]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=16 * GIB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (free[i], 16 * GIB))
    return free


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("share", "expected"), [(1, 16 * GIB), (2, 32 * GIB), (4, 32 * GIB), (0.5, 8 * GIB - CONTEXT), (0.01, 0)]
)
def test_memory_is_that_of_the_replicas_own_gpus(share: float, expected: int) -> None:
    assert gpu_memory.total(share) == expected


def test_those_that_share_a_gpu_find_the_same_room_in_any_order(
    gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: kept.append(fraction))
    for _ in range(2):  # the second finds the first there, full
        gpu_memory.limit_memory(0.5)
        gpu_memory.check_room(6.9 * GIB, 0.5, "x")
        with pytest.raises(UsageError, match=r"take 7\.2 GiB, and 0\.5 GPUs have room for 7\.0 GiB"):
            gpu_memory.check_room(7.2 * GIB, 0.5, "x")
        gpus[0] = 8 * GIB
    assert kept == [pytest.approx(0.5 - 600 / 16384)] * 2
    gpu_memory.limit_memory(1)
    gpu_memory.limit_memory(2)
    assert len(kept) == 2


def test_what_another_process_holds_is_no_room(gpus: list[int]) -> None:
    gpu_memory.check_room(15 * GIB, 1, "x")
    gpus[0] = 10 * GIB
    with pytest.raises(UsageError, match=r"^model: the weights of x take 15\.0 GiB, and 1 GPUs have room for 9\.5 GiB"):
        gpu_memory.check_room(15 * GIB, 1, "x")
    gpu_memory.check_room(24 * GIB, 2, "x")
    assert gpu_memory.total(1) == 16 * GIB  # what is chosen by size stays what it is


def test_layers_go_to_gpus_alone(gpus: list[int]) -> None:
    gpus[1] = 10 * GIB
    assert gpu_memory.placement(1) == {"device_map": {"": 0}}
    expected = {0: int(15.2 * GIB), 1: int(9.5 * GIB)}
    assert gpu_memory.placement(2) == {"device_map": "balanced", "max_memory": expected}


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("device", ["cpu", "disk"])
def test_layers_that_were_moved_away_are_refused(device: str) -> None:
    model = torch.nn.Linear(1, 1)
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": device, "score": device}
    with pytest.raises(
        UsageError, match=r"x does not fit in its GPUs, there was no room for 2 parts, from model\.layers\.1 on"
    ):
        gpu_memory.check_placed(model, "x")
    model.hf_device_map = {"": 0}
    gpu_memory.check_placed(model, "x")


def test_a_cpu_has_no_such_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_memory.total(1) == 0
    assert gpu_memory.placement(2) == {"device_map": {"": "cpu"}}
    gpu_memory.check_room(1 << 60, 1, "x")
    model = torch.nn.Linear(1, 1)
    model.hf_device_map = {"": "cpu"}
    gpu_memory.check_placed(model, "x")


@pytest.mark.parametrize(("cuda", "build"), [(None, "is a build without CUDA"), ("13.0", "is built for CUDA 13.0")])
def test_reserved_gpus_that_torch_does_not_see_are_refused(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, build: str
) -> None:
    monkeypatch.delenv(gpu_memory.PRETEND_VARIABLE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(UsageError, match=rf"^device: a replica reserved 1 GPUs but torch .*, which {build}, sees 0; "):
        gpu_memory.check_reserved(1)
    gpu_memory.check_reserved(0)
    monkeypatch.setenv(gpu_memory.PRETEND_VARIABLE, "1")
    gpu_memory.check_reserved(2)


@pytest.mark.usefixtures("gpus")
def test_fewer_gpus_than_reserved_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpu_memory.PRETEND_VARIABLE)
    gpu_memory.check_reserved(2)
    with pytest.raises(UsageError, match=r"reserved 3 GPUs .* sees 2"):
        gpu_memory.check_reserved(3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED"), False),
    ],
)
def test_out_of_memory_is_known_by_its_words(error: RuntimeError, expected: bool) -> None:
    assert gpu_memory.is_out_of_memory(error) == expected
