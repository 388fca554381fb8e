"""One start of a run: the objects that the steps of the job share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lmsys_ray.ensemble.rejects import check_rejects
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import RunLock
from lmsys_ray.run_directory.manifest import Ingested
from lmsys_ray.run_directory.shard_sizes import ShardSizes
from lmsys_ray.scoring.originals import Originals
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.settings import Settings


@dataclass
class Start:
    """A start of a run: its settings, directory, lock, display and report."""

    settings: Settings
    run: RunDirectory
    lock: RunLock
    display: Display
    report: Report = field(default_factory=Report)
    originals: Originals = field(default_factory=lambda: Originals((), {}))
    """The files that the run is made from; set by `open_run`."""
    shard_sizes: ShardSizes = field(default_factory=lambda: ShardSizes.even(1))
    """How many rows the run's shards have; set by `open_run`."""
    began: float = field(default_factory=time.perf_counter)
    _said: set[str] = field(default_factory=set)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Shows that a stage is under way, and notes in the report how long it took."""
        started = time.perf_counter()
        with self.display.during("run directory" if stage == "total" else stage):
            yield
        self.report.seconds[stage] = round(time.perf_counter() - started, 3)

    def say_once(self, sentence: str) -> None:
        """Prints a sentence about a model or a node, unless this start has printed it before."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.display.say(sentence)

    def note_death(self, member: str) -> None:
        """Notes in the report that a worker of `member` died, or of `input`."""
        self.report.note_death(member, time.perf_counter() - self.began)

    def missing(self, ingested: Ingested) -> dict[str, list[int]]:
        """Returns the shards that each member has yet to score, without members of weight 0."""
        return {name: self.run.missing(name, ingested.shards) for name in self.settings.blending().weights}

    def check_rejects(self) -> None:
        """Raises `RunError` where there are more rejects than the settings allow."""
        rejects, rows = self.report.rejects, self.report.ingested.rows
        fail_on_any = self.settings.on_bad_row == "fail"
        check_rejects(rejects, rows, self.settings.max_error_rate, fail_on_any, self.run)
