"""What a user may ask of a plan, and what is refused in one sentence."""

import math

import pytest

from lmsys_ray.errors import UsageError
from lmsys_ray.planning.devices import GIB, GPUS, known_gpu, machine_for
from lmsys_ray.planning.options import Options, gpu_named, seconds_of

DURATIONS = {"8h": 28_800, "90m": 5400, "90min": 5400, "1h30m": 5400, "2d": 172_800, "45s": 45, "0.5h": 1800}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["8", "h", "8 hours", "0h", "-1h", "8h?", "", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration; give one such as 8h"):
        seconds_of(text)


def test_gpus_are_found_whatever_the_case() -> None:
    assert [gpu_named(gpu.name.lower()) for gpu in GPUS] == list(GPUS)
    with pytest.raises(UsageError, match="--gpu: A100 is not known; accepted: T4, L4, A10G, A100-40"):
        gpu_named("A100")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sample": 0}, "--sample: 0 is not accepted"),
        ({"probe": -1}, "--probe: -1 is not accepted"),
        ({"gpus": 0}, "--gpus: 0 is not accepted"),
        ({"price": -2.0}, "--price: -2 is not the price"),
        ({"price": math.nan}, "--price: nan is not the price"),
        ({"price": math.inf}, "--price: inf is not the price"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Options(**options)  # type: ignore[arg-type]


TORCH_NAMES = {
    ("NVIDIA A100-SXM4-80GB", 79): "A100-80",
    ("NVIDIA A100-PCIE-40GB", 39): "A100-40",
    ("NVIDIA H100 80GB HBM3", 79): "H100",
    ("Tesla T4", 14.6): "T4",
    ("NVIDIA A10G", 22): "A10G",
    ("NVIDIA L4", 22): "L4",
    ("NVIDIA L40S", 44): None,
    ("NVIDIA GeForce RTX 4090", 23): None,
}


@pytest.mark.parametrize(("named", "expected"), TORCH_NAMES.items())
def test_the_gpu_of_a_machine_is_found_by_the_name_that_torch_gives_it(
    named: tuple[str, float], expected: str | None
) -> None:
    name, memory = named
    found = known_gpu(name, int(memory * GIB))
    assert (found.name if found else None) == expected


def test_gpus_that_are_not_here_have_cores_beside_them() -> None:
    machine = machine_for(gpu_named("H100"), 8)
    assert (machine.gpus, machine.here) == (8, False)
    assert machine.with_gpus(2).cores * 4 == machine.cores
