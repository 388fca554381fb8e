"""A million rows through both kinds of members while processes die and files rot: nothing lost, memory flat."""

import csv
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.fault_tolerance.jobs import finish, make_llama, scored_files, start, write_settings
from tests.fault_tolerance.test_actors import actors
from tests.members.lightgbm.texts import cells

ROWS = int(os.environ.get("SOAK_ROWS", "1_000_000"))
SHARD_ROWS = 2000
MALFORMED_EVERY = 1000
"""Every so manieth row is no valid JSON."""

_SAMPLE_SECONDS = 5.0


@dataclass
class Memory:
    """MiB of the driver and of all processes that it started, by the seconds since the soak began."""

    seconds: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)
    everything: list[float] = field(default_factory=list)

    @contextmanager
    def watching(self, driver: int) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SAMPLE_SECONDS):
                own, everything = resident(driver)
                if own:
                    self.seconds.append(time.monotonic())
                    self.driver.append(own)
                    self.everything.append(everything)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def table(self, lines: int = 12) -> Iterator[str]:
        """Yields the largest figures of so many equal stretches of time."""
        yield "minute  driver MiB  all processes MiB"
        minutes = (np.array(self.seconds) - self.seconds[0]) / 60
        for part in np.array_split(np.arange(len(minutes)), min(lines, len(minutes))):
            largest = max(self.driver[i] for i in part), max(self.everything[i] for i in part)
            yield f"{minutes[part[-1]]:6.1f}  {largest[0]:10,.0f}  {largest[1]:17,.0f}"


def resident(driver: int) -> tuple[float, float]:
    """Returns the resident MiB of a driver and of its whole session; memory that processes share counts once each."""
    found: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            pages = [int(value) for value in (folder / "statm").read_text().split()[1:3]]
        except (OSError, ValueError):
            continue
        if session == driver:
            found[int(folder.name)] = (pages[0] - pages[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return found.get(driver, 0.0), sum(found.values())


def write_rows(path: Path) -> list[str]:
    """Writes `ROWS` conversations, no two alike, and returns their ids."""
    texts = [text for text in cells(3000, seed=9) if text.startswith('["') and "ud83d" not in text]
    ids = [f"soak-{n * 7919 % ROWS}-{n}" for n in range(ROWS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for n, name in enumerate(ids):
            prompt = '["unclosed' if n % MALFORMED_EVERY == 7 else json.dumps([f"question {n}"])
            writer.writerow([name, prompt, texts[n * 31 % len(texts)], texts[(n * 17 + 5) % len(texts)]])
    return ids


def harmed(folder: Path, memory: Memory, condition: Callable[[], bool], harm: Callable[[int], None]) -> str:
    """Starts the job, does harm to it once `condition` holds, and returns what it said until its end."""
    process: subprocess.Popen[str] = start(folder)
    with memory.watching(process.pid):
        while process.poll() is None and not condition():
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
        harm(process.pid)
        return process.communicate()[0]


def kill_actor(driver: int) -> None:
    os.kill(actors(driver)[0], signal.SIGKILL)


def kill_driver(driver: int) -> None:
    os.kill(driver, signal.SIGKILL)


def rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_a_million_rows_with_four_faults(tmp_path: Path) -> None:
    ids = write_rows(tmp_path / "in.csv")
    lightgbm = {"kind": "lightgbm", "artifacts": "packaged:lightgbm", "weight": 0.4}
    write_settings(tmp_path, {"llama": make_llama(tmp_path), "lightgbm": lightgbm}, shard_rows=SHARD_ROWS)
    run, shards, memory, began = tmp_path / "run", -(-ROWS // SHARD_ROWS), Memory(), time.monotonic()

    harmed(tmp_path, memory, lambda: sum(1 for _ in run.glob("shards/*")) >= shards // 2, kill_driver)
    harmed(tmp_path, memory, lambda: len(scored_files(tmp_path)) >= shards // 2, kill_driver)
    before = {path: path.stat().st_mtime_ns for path in scored_files(tmp_path)}
    rot(next(iter(before)))
    said = harmed(tmp_path, memory, lambda: len(scored_files(tmp_path)) >= shards, kill_actor)
    assert f"submission: {ROWS:,} lines" in said, said
    assert "1 damaged files are made again" in said, said
    unchanged = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert len(unchanged) == len(before) - 1, "only the damaged shard is scored again"

    rejected = set(range(7, ROWS, MALFORMED_EVERY))
    with (run / "submission.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))[1:]
    assert [line[0] for line in lines] == ids
    values = np.array([line[1:] for line in lines], float)
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=2e-3)
    prior = np.flatnonzero((values == [0.349, 0.342, 0.309]).all(axis=1))
    assert set(prior.tolist()) == rejected
    with (run / "rejects.jsonl").open(encoding="utf-8") as file:
        assert Counter(json.loads(line)["id"] for line in file) == Counter(ids[n] for n in rejected)

    restarted = time.monotonic()
    code, said = finish(tmp_path)
    seconds = time.monotonic() - restarted
    assert code == 0, said
    assert "nothing to score" in said
    print(f"\n{ROWS:,} rows in {(restarted - began) / 60:.1f} min; a further start took {seconds:.1f} s")
    print(*memory.table(), said, sep="\n")
    late, early = (np.array_split(np.array(memory.driver), 4)[part].max() for part in (3, 1))
    assert late < 1.3 * early + 100, "the driver's memory grows with the rows"
