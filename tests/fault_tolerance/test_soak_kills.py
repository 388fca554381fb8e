"""Drivers, workers and raylets killed for an hour in runs that are partly scored: the same bytes, and memory flat."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.fault_tolerance.jobs import finish, make_lightgbm, make_llama, scored_files, start, write_input
from tests.fault_tolerance.jobs import write_settings as write
from tests.fault_tolerance.test_actors import actors
from tests.fault_tolerance.test_local_ray import left_after, processes_in
from tests.fault_tolerance.test_power_cut import made

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
ROWS, SHARD_ROWS = 4_000, 50
_SCORES = 2 * ROWS // SHARD_ROWS

EVERY = ("driver", "raylet", "worker")
ROUNDS = (EVERY, ("worker",))
"""Runs in which each may die, and such where only workers do, so that a driver lives through all of it, in turns."""

_GROWTH = 40.0
"""MiB that a process may have more at the end of its life, before the join, or of the soak, than in its middle."""


@dataclass
class Memory:
    """MiB of drivers and of workers, by number and start: (seconds since the soak began, MiB), first to last."""

    began: float = field(default_factory=time.monotonic)
    found: dict[str, dict[tuple[int, float], list[tuple[float, float]]]] = field(
        default_factory=lambda: {"driver": defaultdict(list), "worker": defaultdict(list)}
    )

    def look(self, driver: int) -> None:
        """Adds what a driver and its workers have now, without the pages that processes share."""
        for kind, pids in (("driver", [driver]), ("worker", actors(driver))):
            for pid in pids:
                try:
                    process = psutil.Process(pid)
                    found, started = process.memory_info(), process.create_time()
                except psutil.Error:
                    continue
                life = self.found[kind][pid, started]  # numbers of processes come again within an hour
                life.append((time.monotonic() - self.began, (found.rss - found.shared) / 2**20))

    def growth(self, kind: str, least_seconds: float = 60.0) -> list[float]:
        """Returns for each process that lived so long how much more it had in its last quarter than in its second."""
        lives = [np.array(life) for life in self.found[kind].values() if life[-1][0] - life[0][0] >= least_seconds]
        quarters = [np.array_split(life[:, 1], 4) for life in lives]
        return [float(parts[3].max() - parts[1].max()) for parts in quarters]

    def peaks(self, kind: str) -> np.ndarray:
        """Returns the most that each process had, in the order in which they began."""
        return np.array([max(mib for _, mib in life) for life in self.found[kind].values()])

    def table(self) -> Iterator[str]:
        for kind in self.found:
            peaks, growth = self.peaks(kind), self.growth(kind)
            thirds = ", ".join(f"{part.max():,.0f}" for part in np.array_split(peaks, 3) if len(part))
            longest = max((life[-1][0] - life[0][0] for life in self.found[kind].values()), default=0.0)
            yield f"{len(peaks)} {kind}s, the longest {longest / 60:.1f} min; peak MiB by thirds of the soak: {thirds}"
            yield f"  second to last quarter of those above 1 min: {', '.join(f'{each:+.0f}' for each in growth)}"


def partly_scored(folder: Path) -> int:
    """Returns how many shards some members have scored and others have not."""
    by_shard = Counter(path.name for path in scored_files(folder))
    return sum(1 for count in by_shard.values() if count == 1)


def victim(kind: str, driver: int, folder: Path, chance: random.Random) -> int | None:
    if kind == "driver":
        return driver
    found = actors(driver) if kind == "worker" else [p.pid for p in processes_in(folder) if p.name() == "raylet"]
    return chance.choice(found) if found else None


class Soak:
    """Starts a job again and again, and kills in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chance = random.Random(SEED)
        self.memory = Memory()
        self.kills: Counter[str] = Counter()
        self.partly: list[int] = []
        self.starts = 0

    @property
    def minutes(self) -> float:
        """How long it goes on."""
        return (time.monotonic() - self.memory.began) / 60

    @property
    def over(self) -> bool:
        """Whether nothing more is to be killed."""
        return self.minutes >= MINUTES

    def round(self, kinds: tuple[str, ...]) -> None:
        """Does a run to its end, in as many starts as that takes."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        while self._start(kinds) != 0:
            pass

    def _start(self, kinds: tuple[str, ...]) -> int:
        """Does one start and returns its exit code; a raylet's death is one sentence, a driver's says nothing."""
        self.starts += 1
        process = start(self.folder, variables={"RAY_TMPDIR": str(self.folder)})
        ended_by = ""
        while not ended_by and not self.over and self._waited(process):
            kind = self.chance.choice(kinds)
            pid = victim(kind, process.pid, self.folder, self.chance)
            if pid is None or process.poll() is not None:
                continue
            self.partly.append(partly_scored(self.folder))
            os.kill(pid, signal.SIGKILL)
            self.kills[kind] += 1
            ended_by = "" if kind == "worker" else kind
            print(
                f"{self.minutes:6.1f} min, start {self.starts}, {self.partly[-1]} shards partly scored: {kind} killed",
                flush=True,
            )
        said, _ = process.communicate(timeout=300)
        expected = {"": {0}, "driver": {-signal.SIGKILL}, "raylet": {0, 1}}[ended_by]
        assert process.returncode in expected, said
        assert "Traceback" not in said, said
        errors = sum(line.startswith("error: ") for line in said.splitlines())
        assert ended_by == "driver" or errors == (process.returncode == 1), said
        assert left_after(self.folder / "r", 60) == []
        return process.returncode

    def _waited(self, process: subprocess.Popen[str]) -> bool:
        """Waits for some more scores and then into the middle of a shard; returns whether the start goes on."""
        due, later = len(scored_files(self.folder)) + self.chance.randint(2, 16), self.chance.random()
        while process.poll() is None and (scored := len(scored_files(self.folder))) < due:
            if scored < _SCORES:  # the join takes memory of its own, once
                self.memory.look(process.pid)
            time.sleep(0.25)
        time.sleep(later)
        return process.poll() is None


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout((MINUTES + 30) * 60)
def test_whatever_dies_the_bytes_are_the_same_and_memory_is_flat() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder / "in.csv", ROWS, dict.fromkeys(range(7, ROWS, 1000), '["unclosed'))
        members = {"llama": make_llama(folder), "lightgbm": make_lightgbm(folder)}
        write(folder, members, shard_rows=SHARD_ROWS, max_deaths=100)
        code, said = finish(folder, "--output", "whole")
        assert code == 0, said
        expected, soak, rounds = made(folder / "whole"), Soak(folder), 0
        while not soak.over:
            soak.round(ROUNDS[rounds % len(ROUNDS)])
            assert made(folder / "run") == expected
            rounds += 1
            print(f"{soak.minutes:6.1f} min, run {rounds}: the same bytes", *soak.memory.table(), sep="\n", flush=True)
    counts = ", ".join(f"{soak.kills[kind]} {kind}s" for kind in EVERY)
    middle = sum(1 for count in soak.partly if count)
    print(f"\n{soak.minutes:.1f} min, {rounds} runs of {ROWS:,} rows in {soak.starts} starts; killed: {counts}")
    print(
        f"{middle} of {len(soak.partly)} kills while shards were partly scored, {np.mean(soak.partly):.0f} on average"
    )
    print(*soak.memory.table(), sep="\n")
    assert middle > 0
    for kind in soak.memory.found:
        peaks = soak.memory.peaks(kind)
        early, late = peaks[: len(peaks) // 2].max(initial=0), peaks[len(peaks) // 2 :].max()
        assert late < early + _GROWTH or rounds < 4, f"later {kind}s need more"
        assert np.median(soak.memory.growth(kind) or [0]) < _GROWTH, f"{kind}s grow"
