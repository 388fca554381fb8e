"""LightGBM finds an OpenMP library, or a sentence tells which to install (see also tests/cli/test_machine.py)."""

import ctypes
from collections.abc import Iterator

import pytest

from lmsys_ray.errors import UsageError
from lmsys_ray.members.lightgbm import openmp


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    openmp.load_openmp.cache_clear()
    yield
    openmp.load_openmp.cache_clear()


@pytest.mark.parametrize("there", ["libgomp.so.1", "torch/lib/libgomp.so.1"])
def test_the_systems_library_is_taken_or_that_of_torch(monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    loaded = []

    def load(place: str, mode: int) -> None:
        if not place.endswith(there):
            raise OSError(place)
        loaded.append(place)

    monkeypatch.setattr(ctypes, "CDLL", load)
    openmp.check_openmp()
    (place,) = loaded
    assert place.endswith(there)


def test_where_there_is_none_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(place: str, mode: int) -> None:
        raise OSError(place)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(UsageError, match=r"^lightgbm: libgomp.so.1 is not on this machine; install it, by apt-get "):
        openmp.check_openmp()
