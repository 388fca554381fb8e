"""The overhead of the job over its scorer: the whole job, and the scorer called in one process on the same shards.

Both are measured in wall-clock seconds from the end of the first shard to the end of the last, when models are loaded
and kernels are warm.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.ingest.shard_size import shard_rows
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.protocol import CONVERSATIONS
from lmsys_ray.run_directory.tables import read_table
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings

Moments = list[tuple[float, int]]
"""The time in seconds at which each shard was finished, and its tokens."""


def load(task: BenchmarkTask, name: str) -> Side:
    """Returns a side that scores all rows of `job_file`, as a `distributed` job or with the scorer `alone`."""
    member = ClassifierSettings.model_validate_json(task.member_file.read_text(encoding="utf-8"))
    return _distributed(task, member) if name == "distributed" else _alone(task, member)


def steady(moments: Moments) -> dict[str, Any]:
    """Returns the tokens of all shards after the first to finish, and the seconds that they took."""
    moments = sorted(moments)
    return {"tokens": sum(tokens for _, tokens in moments[1:]), "seconds": moments[-1][0] - moments[0][0]}


def _distributed(task: BenchmarkTask, member: ClassifierSettings) -> Side:
    def run() -> dict[str, Any]:
        with TemporaryDirectory(dir=task.folder) as output:
            values = {"input": str(task.job_file), "output": output, "members": {"llama": member}}
            settings = Settings.model_validate(values)
            with Display() as display:
                score(settings, display)
            files = sorted(Path(output, "scores", "llama").glob("*.parquet"))
            return steady([(file.stat().st_mtime, pc.sum(read_table(file)["tokens"]).as_py()) for file in files])

    return run


def _alone(task: BenchmarkTask, member: ClassifierSettings) -> Side:
    shards = list(map(ClassifierEncoder(member).encode, _shards(task.job_file)))
    scorer = ClassifierScorer(member)

    def run() -> dict[str, Any]:
        moments: Moments = []
        for shard in shards:
            scorer.score(shard)
            moments.append((time.perf_counter(), pc.sum(shard["tokens"]).as_py()))
        return steady(moments)

    return run


def _shards(path: Path) -> list[pa.Table]:
    """Returns the shards that a job makes of a file, largest first, as they are dispatched."""
    table = pq.read_table(path)
    rows = shard_rows("auto", [{"path": str(path), "bytes": path.stat().st_size}], None)
    table = table.append_column("row", pa.array(range(table.num_rows), pa.int64())).select(CONVERSATIONS.names)
    shards = [table.slice(start, rows) for start in range(0, table.num_rows, rows)]
    return sorted(shards, key=lambda shard: -shard.nbytes)


def save_job(conversations: pa.Table, member: ClassifierSettings, task: BenchmarkTask) -> None:
    """Writes what both sides score, and with which settings: the task's checkpoint, which includes the adapter."""
    ids = pa.array([str(number) for number in range(conversations.num_rows)])
    pq.write_table(conversations.select(list(CELLS)).add_column(0, "id", ids), task.job_file)
    sizes = {"batch_tokens": task.batch_tokens, "threads": task.threads}
    changes = {"model": str(task.checkpoint), "adapter": None, "layers": None, **sizes}
    task.member_file.write_text(member.model_copy(update=changes).model_dump_json(), encoding="utf-8")
