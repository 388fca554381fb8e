"""Three Llama members and a LightGBM member on two CPUs and two pretended GPUs, and one more that comes later."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmsys_ray.scoring.job import Report, score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings
from tests.fault_tolerance.jobs import make_lightgbm, make_llama, submission, write_input
from tests.tiny_llama import make_adapter

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.usefixtures("ray_session")]

ROWS, SHARD_ROWS = 64, 8
LLAMAS = ["first", "second", "third"]


class Diary(Display):
    """Remembers in which order passes began and shards were written."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[str, str]] = []

    def start(self, stage: str, rows: int | None, done: int = 0) -> None:
        self._events.append(("begins", stage))
        super().start(stage, rows, done)

    def advance(self, stage: str, rows: int, rate: str = "") -> None:
        self._events.append(("writes", stage))
        super().advance(stage, rows, rate)

    def places(self, event: str, stage: str) -> list[int]:
        return [place for place, each in enumerate(self._events) if each == (event, stage)]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Llama members on one base model, each with its own adapter; the third needs both GPUs for one replica."""
    folder = tmp_path_factory.mktemp("models")
    llama = {**make_llama(folder), "weight": 0.2}
    names = [*LLAMAS, "late"]
    adapters = {name: str(make_adapter(folder / name, seed=seed)) for seed, name in enumerate(names)}
    made = {name: {**llama, "adapter": adapters[name]} for name in names}
    made["third"]["gpus_per_replica"] = 2
    return {**made, "lightgbm": {**make_lightgbm(folder), "workers": "auto"}}


def run(folder: Path, members: dict[str, Any]) -> tuple[Report, Diary]:
    values = {"input": str(folder / "in.csv"), "output": str(folder / "run"), "shard_rows": SHARD_ROWS}
    with Diary() as diary:
        return score(Settings.model_validate({**values, "members": members}), diary), diary


def blended(folder: Path, members: dict[str, Any]) -> np.ndarray:
    """Returns the members' own probabilities, weighted [rows, 3]."""
    total = np.zeros((ROWS, 3))
    for name, member in members.items():
        files = sorted((folder / "run" / "scores" / name).glob("*.parquet"))
        tables = [pq.read_table(file, columns=["a", "b", "tie"]) for file in files]
        total += member["weight"] * np.concatenate([np.column_stack([t[c] for c in t.column_names]) for t in tables])
    return total / sum(member["weight"] for member in members.values())


def test_llama_passes_take_turns_beside_the_cpu_pass_and_a_late_member_scores_only_itself(
    tmp_path: Path, members: dict[str, dict[str, Any]]
) -> None:
    ids = write_input(tmp_path / "in.csv", ROWS)
    early = {name: member for name, member in members.items() if name != "late"}
    report, diary = run(tmp_path, early)
    assert report.scored == dict.fromkeys(early, ROWS)
    for before, after in pairwise(LLAMAS):
        assert max(diary.places("writes", before)) < min(diary.places("begins", after))
    assert max(diary.places("begins", "lightgbm")) < min(diary.places("writes", "first")), (
        "the CPU pass did not overlap"
    )
    assert {name: nodes.total() for name, nodes in report.nodes.items()} == dict.fromkeys(early, ROWS // SHARD_ROWS)
    lines = submission(tmp_path)
    assert [line[0] for line in lines] == ids
    np.testing.assert_allclose([[float(p) for p in line[1:]] for line in lines], blended(tmp_path, early), atol=1e-6)

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scores").glob("*/*.parquet")}
    report, _ = run(tmp_path, members)
    assert report.scored == {"late": ROWS}
    assert {path: path.stat().st_mtime_ns for path in written} == written
    lines = submission(tmp_path)
    np.testing.assert_allclose([[float(p) for p in line[1:]] for line in lines], blended(tmp_path, members), atol=1e-6)
    assert np.abs(blended(tmp_path, members) - blended(tmp_path, early)).max() > 1e-3
