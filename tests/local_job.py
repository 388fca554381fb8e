"""The whole job in this process, without Ray: real files, ingest, run directory and join; models are stood in for.

What a stand-in scores depends on a row's text and on the member's artefacts alone, as with a real member.
`python -m tests.local_job run.yaml` is a start in a process of its own.
"""

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import yaml

from lmsys_ray.cli.command import run_command
from lmsys_ray.cluster.read_files import DistributedReader
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.data.readers import BEGINNING, read_rows
from lmsys_ray.engine.usage import Usage
from lmsys_ray.members.protocol import Scores
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring import ingestion, job, passes
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.run_pass import Pass
from lmsys_ray.scoring.score_tables import scorable, score_table
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.unchanged import Original, all_unchanged

Hook = Callable[[str], None]
"""Called where a test may do harm: `ingest`, `open` and `read` of a file, `pass`, `scored` behind a shard."""


class LocalRows(DistributedReader):
    """Reads the files in this process."""

    at: Hook = staticmethod(lambda place: None)

    def __iter__(self) -> Iterator[tuple[str, pa.Table]]:
        LocalRows.at("ingest")
        left = self.limit
        assert self.guard is not None
        for place, file in enumerate(self.files):
            with self.guard.originals[place].unchanged():
                LocalRows.at("open")
                start = BEGINNING if place else self.start
                name = self.names[place] if self.names else ""
                for table in read_rows(file, self.form, limit=left, start=start, reading=self.reading, name=name):
                    left = None if left is None else left - table.num_rows
                    yield file, table
                    LocalRows.at("read")

    def resume_at(self, file: str, start: Any, rows: int) -> "LocalRows":
        later = super().resume_at(file, start, rows)
        return LocalRows(
            later.files, later.form, later.limit, later.start, later.guard, reading=later.reading, names=later.names
        )


def local_rows(files: Sequence[str], form: Any, limit: int | None, guard: Any, *others: Any) -> LocalRows:
    *_, reading, names = others
    return LocalRows(files, form, limit, guard=guard, reading=reading, names=names)


def probabilities(table: pa.Table, salt: str) -> np.ndarray:
    texts = [f"{salt}|{row['prompt']}|{row['response_a']}|{row['response_b']}" for row in table.to_pylist()]
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
    rows = [np.random.default_rng(seed).dirichlet([1, 1, 1]) for seed in seeds]
    return np.array(rows).reshape(-1, 3)


def local_passes(run: RunDirectory, settings: Settings, passes: Sequence[Pass], *_: Any) -> Iterator[ScoredShard]:
    for each in passes:
        yield from local_pass(run, settings, each.name, each.shards, each.originals)


def local_pass(
    run: RunDirectory, settings: Settings, name: str, shards: Sequence[int], originals: Sequence[Original]
) -> Iterator[ScoredShard]:
    with all_unchanged(originals):
        salt = (Path(settings.members[name].artifacts) / "model.txt").read_text()
    for number in shards:
        rows = scorable(run.read_shard(number))
        run.write_scores(name, number, score_table(rows["row"], Scores(probabilities(rows, salt)), swap=False))
        yield ScoredShard(name, number, rows.num_rows, 0, [], "node", "replica", 0.001, Usage(), {"device": "none"}, [])


@contextmanager
def _watchdog(*_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(ledger=None, progress=lambda: None)


def run_job(settings: Settings, at: Hook = lambda place: None) -> Report:
    """Does one start of the job."""

    def scored(*arguments: Any) -> Iterator[ScoredShard]:
        at("pass")
        for shard in local_passes(*arguments):
            yield shard
            at("scored")

    stand_ins: Sequence[tuple[ModuleType, str, Any]] = [
        (job, "ray_cluster", lambda *_: nullcontext(Resources(2, 0))),
        (job, "Watchdog", _watchdog),
        (ingestion, "NodeWatch", lambda *_: nullcontext()),
        (ingestion, "read_files", local_rows),
        (passes, "NodeWatch", lambda *_: nullcontext()),
        (passes, "present_resources", lambda *_: Resources(2, 0)),
        (passes, "run_passes", scored),
    ]
    with ExitStack() as stack:
        for module, name, stand_in in stand_ins:
            stack.enter_context(mock.patch.object(module, name, stand_in))
        stack.enter_context(mock.patch.object(LocalRows, "at", staticmethod(at)))
        with Display() as display:
            return job.score(settings, display)


def make_settings(folder: Path, rows: int = 40, **changes: object) -> Settings:
    """Writes input and artefacts into `folder`, unless they are there, and returns settings of a job on them."""
    for member in ("judge", "other"):
        if not (folder / member).exists():
            (folder / member).mkdir(parents=True)
            (folder / member / "model.txt").write_text(member)
    if not (folder / "in.csv").exists():
        write_rows(folder / "in.csv", rows)
    members = {
        name: {"kind": "lightgbm", "artifacts": str(folder / name), "weight": weight}
        for name, weight in {"judge": 0.7, "other": 0.3}.items()
    }
    values = {"input": str(folder / "in.csv"), "output": str(folder / "run"), "shard_rows": 8, "members": members}
    return Settings.model_validate({**values, "max_error_rate": 1, **changes})


def write_rows(path: Path, rows: int, prefix: str = "id", bad: Sequence[int] = (3,)) -> None:
    """Writes conversations; those at `bad` are rejects."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for n in range(rows):
            writer.writerow([f"{prefix}{n}", '["open' if n in bad else f"prompt {prefix} {n}", f"a {n}", f"b {n % 7}"])


def main() -> int:
    run_job(Settings.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
