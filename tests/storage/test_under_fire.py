"""The whole job on object storage while its processes are killed, its bucket vanishes and its store hangs."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import finish, make_lightgbm, make_llama, start, write_input, write_settings
from tests.fault_tolerance.test_actors import actors
from tests.storage.conftest import Bucket
from tests.storage.proxy import GONE, HANGS, Proxy, proxy_before
from tests.storage.test_job import in_storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SHARD_ROWS = 4


class Job:
    """A job whose input, models and run directory lie in a bucket behind a proxy."""

    def __init__(self, folder: Path, bucket: Bucket, proxy: Proxy, rows: int) -> None:
        self.folder, self.bucket, self.proxy, self.rows = folder, bucket, proxy, rows
        members = {"llama": {**make_llama(folder), "threads": 1}, "lightgbm": make_lightgbm(folder)}
        write_input(folder / "in.csv", rows, {5: '["unclosed'})
        write_settings(folder, members, shard_rows=SHARD_ROWS)
        code, said = finish(folder)
        assert code == 0, said
        self.expected = (folder / "run" / "submission.csv").read_bytes()
        source, output, moved = in_storage(bucket, folder, members)
        write_settings(folder, moved, shard_rows=SHARD_ROWS, input=source, output=output)

    def begin(self) -> subprocess.Popen[str]:
        return start(self.folder, variables={"AWS_ENDPOINT_URL": self.proxy.url})

    def scores(self) -> list[str]:
        """Returns the keys of the shards that are scored."""
        return [key for key in self.bucket.listing("runs/today/scores/") if key.endswith(".parquet")]

    def finish(self) -> str:
        """Runs it to its end, which has to be a good one, and returns what it said."""
        process = self.begin()
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said
        assert self.bucket.get("runs/today/submission.csv") == self.expected
        assert self.bucket.listing("runs/today/lock") == []
        return said


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket, endpoint: str) -> Iterator[Job]:
    """A job that is long enough to be disturbed as often as the test does."""
    long = request.node.get_closest_marker("soak") is not None
    with proxy_before(endpoint) as proxy:
        yield Job(tmp_path, bucket, proxy, rows=192 if long else 96)


def wait_until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Returns when something happened, or the process ended."""
    while process.poll() is None and not happened():
        time.sleep(0.02)


def kill_after(job: Job, requests: int) -> bool:
    """Kills the driver after so many requests of a start; returns whether it was still at work."""
    before, process = len(job.proxy.seen), job.begin()
    wait_until(process, lambda: len(job.proxy.seen) - before >= requests)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def kill_an_actor(job: Job, process: subprocess.Popen[str]) -> None:
    wait_until(process, lambda: bool(actors(process.pid)) and bool(job.scores()))
    os.kill(actors(process.pid)[0], signal.SIGKILL)


def end_of_one_whose_bucket_vanishes(job: Job) -> str:
    before, process = len(job.scores()), job.begin()
    wait_until(process, lambda: len(job.scores()) >= before + 4)
    job.proxy.always = GONE
    said, _ = process.communicate(timeout=300)
    job.proxy.always = None
    assert process.returncode == 1, said
    return said


def test_killed_and_without_its_bucket_for_a_while_it_ends_with_the_same_bytes(job: Job) -> None:
    assert kill_after(job, 150)
    said = end_of_one_whose_bucket_vanishes(job)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "(not there: The specified bucket does not exist); check" in error or "is gone; put it back and" in error
    assert "Traceback" not in said
    job.finish()


@pytest.mark.soak
def test_killed_at_ten_moments_it_ends_with_the_same_bytes(job: Job) -> None:
    process = job.begin()
    kill_an_actor(job, process)
    process.kill()
    process.communicate()
    chance, files, kills = random.Random(0), set(job.scores()), 0
    for _ in range(10):
        kills += kill_after(job, chance.randint(1, 200))
        now = set(job.scores())
        assert files <= now
        files = now
    job.finish()
    assert kills >= 8
    print(
        f"{kills} kills of the driver, {len(files)} of {2 * job.rows // SHARD_ROWS} shards scored before the last start"
    )


@pytest.mark.soak
def test_a_store_that_hangs_is_told_of_and_waited_for_and_given_up_in_minutes(job: Job) -> None:
    process = job.begin()
    wait_until(process, lambda: len(job.scores()) >= 4)
    job.proxy.always = HANGS
    time.sleep(40)
    job.proxy.always = None
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "still at work: " in said
    assert job.bucket.get("runs/today/submission.csv") == job.expected

    job.bucket.remove("runs/today/submission.csv")
    job.proxy.always, began = HANGS, time.monotonic()
    process = job.begin()
    said, _ = process.communicate(timeout=900)
    seconds = time.monotonic() - began
    job.proxy.always = None
    print(said, f"{seconds:.0f} s", sep="\n")
    assert process.returncode == 1, said
    assert seconds < 400
    assert said.count("still at work: ") >= seconds // 30
    assert "(out of reach: Read timeout on endpoint URL" in said.splitlines()[-1]
    job.finish()
