"""The whole job on object storage: input, models and run directory in a bucket, faults included."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.run_directory import sealed_parquet as sealed
from lmsys_ray.scoring.job import Report, score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings
from tests.fault_tolerance.jobs import ROOT, make_lightgbm, make_llama, write_input
from tests.storage.conftest import Bucket

pytestmark = pytest.mark.slow

ROWS, SHARD_ROWS = 64, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def members(folder: Path) -> dict[str, dict]:
    return {"llama": {**make_llama(folder), "threads": 1}, "lightgbm": make_lightgbm(folder)}


def scored(source: str, output: str, members: dict) -> Report:
    values = {"input": source, "output": output, "shard_rows": SHARD_ROWS, "members": members}
    with Display() as display:
        return score(Settings.model_validate(values), display)


def in_storage(bucket: Bucket, folder: Path, members: dict[str, dict]) -> tuple[str, str, dict]:
    """Puts input and models into a bucket; returns the job's input, output and members there."""
    for name in ("in.csv", *(f.relative_to(folder) for f in folder.rglob("*") if f.parent.name in NAMES)):
        bucket.put(str(name), (folder / name).read_bytes())
    moved = {
        name: {key: value.replace(str(folder), bucket.url) if key in KEYS else value for key, value in member.items()}
        for name, member in members.items()
    }
    return f"{bucket.url}/*.csv", f"{bucket.url}/runs/today", moved


NAMES, KEYS = ("llama", "adapter", "lightgbm"), ("model", "adapter", "artifacts")


@pytest.mark.usefixtures("ray_session")
def test_job_in_a_bucket_writes_what_a_local_one_writes_whatever_happens(
    folder: Path, members: dict[str, dict], bucket: Bucket, denied_after: Callable[[float], None]
) -> None:
    write_input(folder / "in.csv", ROWS, {5: '["unclosed'})
    scored(str(folder / "in.csv"), str(folder / "run"), members)
    expected = (folder / "run" / "submission.csv").read_bytes()
    job = in_storage(bucket, folder, members)

    for requests_left in (25, 60, 110):  # in ingest, before a pass, in one
        denied_after(requests_left)
        with pytest.raises(RunError, match=r"cannot be \w+ \(access denied: .*\); check the credentials"):
            scored(*job)
        denied_after(float("inf"))
        bucket.remove("runs/today/lock.json")  # It could not be removed, and would be stale if this process were dead.
        for key in bucket.listing("runs/"):
            if key.endswith(".parquet"):
                sealed.from_bytes(bucket.get(key), [])
        assert "runs/today/submission.csv" not in bucket.listing()
    report = scored(*job)
    assert report.rejects == 1
    assert bucket.get("runs/today/submission.csv") == expected
    assert json.loads(bucket.get("runs/today/rejects.jsonl"))["file"] == f"{bucket.url}/in.csv"
    assert "runs/today/lock.json" not in bucket.listing()

    bucket.remove("runs/today/scores/llama/00003.parquet")
    bucket.put("runs/today/scores/lightgbm/00005.parquet", bucket.get("runs/today/scores/lightgbm/00004.parquet")[:-9])
    bucket.remove("runs/today/submission.csv")
    report = scored(*job)
    assert report.scored == {"llama": SHARD_ROWS, "lightgbm": SHARD_ROWS}
    assert bucket.get("runs/today/submission.csv") == expected


def said(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-W", "ignore", str(ROOT / "jobs" / "score.py"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.strip()


def test_the_command_says_what_is_wrong_in_one_line(folder: Path, bucket: Bucket) -> None:
    write_input(folder / "few.csv", 2)
    local = str(folder / "few.csv")
    code, line = said("--input", f"{bucket.url}/none.csv", "--output", str(folder / "x"))
    assert (code, line.count("\n")) == (2, 0)
    assert line.startswith(f"error: input: {bucket.url}/none.csv does not exist; ")
    code, line = said("--input", local, "--output", "s3://no-such-bucket/run")
    assert (code, line.count("\n")) == (1, 0)
    assert line.startswith("error: s3://no-such-bucket/run/lock.json cannot be written (not there: ")
    code, line = said("--input", local, "--output", "s3://KEY:SECRET@bucket/run")
    assert (code, line.count("\n")) == (2, 0)
    assert "SECRET" not in line
