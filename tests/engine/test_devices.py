"""How a replica is fitted to its machine."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.engine import cpu, devices, torch_internals
from lmsys_ray.engine.weight_counts import Weights
from lmsys_ray.errors import UsageError


@pytest.mark.parametrize(
    ("threads", "replicas", "expected"),
    [("auto", "auto", 8), ("auto", 1, 8), ("auto", 3, 2), ("auto", 20, 1), (5, 3, 5)],
)
def test_replicas_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, threads: int | str, replicas: int | str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cpu.share_of_cores(threads, replicas) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vendor", "family", "expected"),
    [("AuthenticAMD", 26, True), ("AuthenticAMD", 25, False), ("GenuineIntel", 26, False)],
)
def test_a_processor_wider_than_mkl_is_known_by_its_family(vendor: str, family: int, expected: bool) -> None:
    described = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n\n"
    assert cpu.wider_than_mkl(described * 2) == expected
    assert not cpu.wider_than_mkl("")


@given(st.integers(1, 100_000))
def test_the_budget_is_the_largest_tried_that_fits(room: int) -> None:
    tried: list[int] = []

    def fits(budget: int) -> bool:
        tried.append(budget)
        return budget <= room

    budget = devices.largest_budget(fits)
    assert budget <= max(room, 512)
    assert 2 * budget > min(room, devices.MOST_BATCH_TOKENS)
    assert tried == sorted(tried, reverse=True)


def test_fp8_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    with pytest.raises(UsageError, match="quantization: A100 has no fp8 products"):
        devices.choose_quantization("fp8", Weights(1, 0), 80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(devices, "fp8_failure", lambda: None)
    assert devices.choose_quantization("fp8", Weights(1, 0), 80 << 30) == "fp8"


def test_fp8_is_refused_where_torch_cannot_scale_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs of capability 12.0, whose fp8 products took one scale for a whole matrix alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (12, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "RTX 5090")
    ones, asked = torch.ones, []

    def fail(*matrices: torch.Tensor, **keywords: object) -> torch.Tensor:
        asked.append([matrix.shape for matrix in matrices])
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmulAlgoGetHeuristic")

    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(shape))
    monkeypatch.setattr(torch_internals, "scaled_mm", fail)
    with pytest.raises(UsageError, match=r"a scale for each row on RTX 5090 \(CUDA error: CUBLAS_STATUS_NOT_SUPPORTED"):
        devices.choose_quantization("fp8", Weights(1, 0), 32 << 30)
    assert asked == [[(256, 256), (256, 256), (256, 1), (1, 256)]]
