"""Each warning is said where it should be, and nowhere else."""

from typing import Any

import numpy as np
import pytest

from lmsys_ray.planning import warnings
from lmsys_ray.planning.devices import GIB, Machine
from lmsys_ray.planning.loads import Loads
from lmsys_ray.planning.memory import Memory
from lmsys_ray.planning.options import gpu_named
from lmsys_ray.planning.reads import Kept, Reads

HERE = Machine("2 CPU cores", 0, 2, 24 * GIB, here=True)


def on(name: str) -> Machine:
    gpu = gpu_named(name)
    assert gpu
    return Machine(name, 1, 8, int(gpu.memory * GIB), here=False, gpu=gpu)


def reads(truncated: float = 0.0, gone: float = 0.0, failed: int = 0) -> Reads:
    kept = {"response_b": Kept(1 - gone, gone)}
    tokens = np.array([10, 20, 30, 40])
    reasons = {"too long": failed} if failed else {}
    return Reads(100 - failed, reasons, tokens, 1, tokens, truncated, True, kept, [], "id")


def loads(**changes: Any) -> Loads:
    values: dict[str, Any] = {
        **{"architecture": "X", "parameters": 8 * 10**9, "adapter_parameters": 0, "blocks": 32, "quantization": "none"},
        **{"dtype": "bfloat16", "width": 2, "weight_bytes": 16 * 10**9, "stored": "BF16", "attention": ""},
        **{"causal": True, "tokenizer": "", "vocabulary": 1, "head": "", "pooling": "", "hidden": 4096},
        **{"intermediate": 14_336, "heads": 32, "head_dim": 128, "computed": 7 * 10**9},
    }
    return Loads(**{**values, **changes})


def test_response_b_that_is_cut_away_wholly() -> None:
    assert warnings.response_b_gone(reads(), "right") is None
    found = warnings.response_b_gone(reads(gone=0.123), "right")
    assert found == "response B is cut away wholly in 12.3% of rows (truncation: right); set truncation to balanced"
    assert "raise max_length" in (warnings.response_b_gone(reads(gone=0.1), None) or "")


def test_many_truncated_rows() -> None:
    assert warnings.many_truncated(reads(truncated=0.1), 512) is None
    assert warnings.many_truncated(reads(truncated=0.33), 512) == "33% of rows are cut to max_length = 512"


def test_a_doubled_beginning() -> None:
    assert warnings.doubled_beginning(None) is None
    assert "begins with <s> twice" in (warnings.doubled_beginning("<s>") or "")


def test_rows_that_cannot_be_read() -> None:
    assert warnings.rows_not_read(reads()) is None
    assert warnings.rows_not_read(reads(failed=5)) == "5.0% of rows cannot be read (too long)"


@pytest.mark.parametrize(
    ("asked", "plain", "said"),
    [
        ("int8", True, True),
        ("nf4", True, True),
        ("int8", False, False),
        ("auto", True, False),
        ("int8_dynamic", True, False),
    ],
)
def test_quantization_where_the_plain_weights_fit(asked: str, plain: bool, said: bool) -> None:
    assert (warnings.slow_quantization(asked, plain) is not None) == said


def test_fp8_where_there_is_none() -> None:
    assert warnings.no_fp8(loads(quantization="fp8"), on("H100")) is None
    assert warnings.no_fp8(loads(), on("A100-80")) is None
    assert "A100-80 has no fp8" in (warnings.no_fp8(loads(quantization="fp8"), on("A100-80")) or "")


def test_a_model_that_does_not_fit() -> None:
    assert warnings.does_not_fit(Memory(10 * GIB, GIB, 0, 12 * GIB, 2048), on("T4")) is None
    found = warnings.does_not_fit(Memory(16 * GIB, GIB, 0, 14 * GIB, 2048), on("T4"))
    assert found is not None
    assert found.startswith("needs 17.0 GiB, T4 has 14.0 GiB; set quantization")
    assert "more memory" in (warnings.does_not_fit(Memory(26 * GIB, GIB, 0, 24 * GIB, 2048), HERE) or "")


def test_shards_too_large_for_so_many_replicas() -> None:
    assert warnings.large_shards(98, 8, 100_000, 1024) is None
    assert warnings.large_shards(2, 1, 2000, 1024) is None
    assert warnings.large_shards(1, 8, 40, 64) is None
    found = warnings.large_shards(6, 8, 6217, 1024)
    assert found is not None
    assert "6 shards of 1,024 rows for 8 replicas, 2 of which get none" in found
    assert "set shard_rows to 32" in found


def test_rejects_that_stop_a_run() -> None:
    assert warnings.rejects_stop_the_run(10, 50, 0.01, "reject") is None
    assert "stops after ingest" in (warnings.rejects_stop_the_run(20, 1000, 0.01, "reject") or "")
    assert "stops at the first" in (warnings.rejects_stop_the_run(1, 1000, 0.01, "fail") or "")


def test_a_measurement_on_a_busy_machine() -> None:
    assert warnings.busy(None, 2) is None
    assert warnings.busy(1.5, 2) is None
    assert "a load of 14 on 2 cores" in (warnings.busy(14.2, 2) or "")


def test_a_deadline_that_is_missed() -> None:
    assert warnings.late(10, 20) is None
    assert "longer than the deadline of 20 s" in (warnings.late(30, 20) or "")
