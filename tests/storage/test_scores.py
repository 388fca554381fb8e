"""Scores from elsewhere that lie in object storage."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.errors import UsageError
from lmsys_ray.members.registry import kind_named, validated
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.settings import Settings
from tests.evaluation.runs import drawn, make_run
from tests.members.scores.test_runs import rows_of
from tests.storage.conftest import Bucket

KIND = kind_named("scores")
ROWS = 100
PROBABILITIES = drawn(ROWS, seed=4)[0].astype(np.float32)


def found(**settings: object) -> np.ndarray:
    chosen = KIND.preflight(validated({"kind": "scores", **settings}), "members.m")
    scores = KIND.scorer(chosen, "auto").score(rows_of([*range(ROWS)]))
    assert scores.failed == {}
    assert scores.probabilities is not None
    return scores.probabilities


def digest(folder: Path, **settings: object) -> str:
    (folder / "in.csv").write_text("id,prompt,response_a,response_b\nid0,a,b,c\n")
    chosen = {"input": str(folder / "in.csv"), "output": str(folder / "new"), "members": {"m": settings}}
    return fingerprint(Settings.model_validate(chosen))["members"]["m"]["path_content"]


def test_a_file_is_read_where_it_lies(bucket: Bucket, tmp_path: Path) -> None:
    lines = "".join(f"id{n},{a!r},{b!r},{tie!r}\n" for n, (a, b, tie) in enumerate(PROBABILITIES.tolist()))
    text = f"id,a,b,tie\n{lines}"
    for name, data in (("s.csv", text.encode()), ("s.csv.gz", gzip.compress(text.encode()))):
        url = bucket.put(name, data)
        np.testing.assert_allclose(found(path=url), PROBABILITIES, atol=1e-7)
        before = digest(tmp_path, kind="scores", path=url)
        assert before.startswith("etag ")
        bucket.put(name, data[:-1])
        assert digest(tmp_path, kind="scores", path=url) != before
    with pytest.raises(UsageError, match=r"members\.m\.path = 's3://.*/no\.csv' does not exist; accepted: a file of"):
        found(path=f"{bucket.url}/no.csv")


def test_a_member_of_a_run_is_read_where_it_lies(bucket: Bucket, tmp_path: Path) -> None:
    make_run(tmp_path, ["p"] * ROWS, {"judge": PROBABILITIES}, {"judge": 1.0})
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            bucket.put(f"runs/one/{file.relative_to(tmp_path / 'run')}", file.read_bytes())
    settings = {"path": f"{bucket.url}/runs/one", "member": "judge"}
    np.testing.assert_array_equal(found(**settings), PROBABILITIES)
    before = digest(tmp_path, kind="scores", **settings)
    bucket.put("runs/one/manifest.json", bucket.get("runs/one/manifest.json") + b"\n")
    bucket.put("runs/one/lock.json", b"{}")
    assert digest(tmp_path, kind="scores", **settings) == before
    bucket.remove("runs/one/scores/judge/00001.parquet")
    assert digest(tmp_path, kind="scores", **settings) != before
    with pytest.raises(UsageError, match=r"has scores of judge for 1 of its 2 shards"):
        found(**settings)
