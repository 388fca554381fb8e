"""Features and scores have the same bits on every CPU."""

import json
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.members.lightgbm.portable import log1p, on_grid, softmax
from lmsys_ray.members.lightgbm.preference import named_features
from tests.members.lightgbm.texts import conversations


@given(st.lists(st.integers(0, 2**40) | st.integers(0, 300), min_size=1, max_size=20))
def test_the_logarithm_is_right_to_the_last_bits(counts: list[int]) -> None:
    found = log1p(np.array(counts, np.float64))
    with localcontext() as context:
        context.prec = 40
        errors = [abs(float(Decimal(float(x)) - Decimal(n + 1).ln())) for x, n in zip(found, counts, strict=True)]
    assert (np.array(errors) <= 2 * np.spacing(found)).all()


@given(st.lists(st.tuples(*[st.floats(-800, 800)] * 3), min_size=1, max_size=20))
def test_softmax_is_that_of_the_textbook(values: list[tuple[float, float, float]]) -> None:
    array = np.array(values)
    powers = np.exp(array - array.max(axis=1, keepdims=True))
    assert np.allclose(softmax(array), powers / powers.sum(axis=1, keepdims=True), rtol=1e-14, atol=1e-300)
    assert np.array_equal(softmax(array)[:, [1, 0, 2]], softmax(array[:, [1, 0, 2]]))


def test_what_is_equal_but_for_rounding_comes_out_equal() -> None:
    a, b = np.arange(1000.0), 2 * np.arange(1000.0) + 1  # (b + 1) / (a + 1) is 2 everywhere
    differences = log1p(a) - log1p(b)
    assert len(np.unique(differences)) > 1
    assert len(np.unique(on_grid(differences))) == 1
    assert np.array_equal(on_grid(-differences), -on_grid(differences))


def test_no_function_whose_last_bit_varies_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between CPUs with AVX-512 and others: some results are the next float. Rounding would not hide all of them."""
    rows = conversations(40, seed=1)
    before = named_features(rows, "auto")
    for name in ("log", "log2", "log10", "log1p", "exp", "expm1", "power", "tanh"):
        function = getattr(np, name)

        def varied(*arguments: np.ndarray, function: np.ufunc = function) -> np.ndarray:
            result = np.array(function(*arguments), np.float64)
            return np.where(result.view(np.int64) % 3 == 0, np.nextafter(result, np.inf), result)

        monkeypatch.setattr(np, name, varied)
    for name, column in named_features(rows, "auto").items():
        assert column.tobytes() == before[name].tobytes(), name
    values = np.random.default_rng(0).normal(size=(1000, 3))
    found = softmax(values)
    monkeypatch.undo()
    assert softmax(values).tobytes() == found.tobytes()


def printed(**environment: str) -> dict[str, str]:
    command = [sys.executable, "-m", "tests.members.lightgbm.bits"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_processes_with_fewer_of_the_cpus_features_give_the_same_bytes() -> None:
    """NumPy and the C library choose their code by the features of the CPU; both can be told that it has fewer."""
    found = np.show_config("dicts")["SIMD Extensions"]["found"]
    as_it_is = printed()
    assert printed(NPY_DISABLE_CPU_FEATURES=" ".join(found)) == as_it_is
    assert printed(GLIBC_TUNABLES="glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-AVX512F") == as_it_is
