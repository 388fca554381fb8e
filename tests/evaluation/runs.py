"""Run directories as the scorer leaves them, with scores that are drawn and not computed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lmsys_ray.data.labels import COLUMNS
from lmsys_ray.data.readers import read_rows
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.members.protocol import Scores
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.run_directory.tables import write_table
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.score_tables import scorable, score_table
from lmsys_ray.scoring.settings import Settings

SHARD_ROWS = 64


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities [rows, 3] and labels drawn from them."""
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet([1.2, 1.2, 0.6], rows)
    labels = (generator.random(rows)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    return truth, np.minimum(labels, 2)


def blurred(truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Returns `truth` mixed with a share of noise: what an imperfect member knows of it."""
    return (1 - share) * truth + share * np.random.default_rng(seed).dirichlet([3, 3, 3], len(truth))


def write_input(path: Path, prompts: Sequence[str]) -> None:
    """Writes conversations with ids id0, id1 and so on; an empty prompt makes a row that is rejected."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for number, prompt in enumerate(prompts):
            writer.writerow([f"id{number}", prompt or '["unclosed', "one answer", "another answer"])


def write_labels(
    path: Path,
    labels: Sequence[int] | np.ndarray,
    ids: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> None:
    """Writes labels of id0, id1 and so on, or of `ids`."""
    marks = np.eye(3, dtype=int)[np.asarray(labels, dtype=int)].tolist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *COLUMNS, *(["source"] if sources else [])])
        for number, mark in enumerate(marks):
            writer.writerow([ids[number] if ids else f"id{number}", *mark, *([sources[number]] if sources else [])])


def make_run(
    folder: Path,
    prompts: Sequence[str],
    members: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    swapped: Mapping[str, np.ndarray] | None = None,
    temperature: float = 1.0,
) -> tuple[RunDirectory, Settings]:
    """Returns a finished run on `prompts`, whose `members` gave these probabilities [rows, 3].

    `swapped` holds what members gave for B/A, classes put back.
    """
    write_input(folder / "input.csv", prompts)
    settings = Settings.model_validate(
        {
            "input": str(folder / "input.csv"),
            "output": str(folder / "run"),
            "shard_rows": SHARD_ROWS,
            "temperature": temperature,
            "members": {
                name: {"kind": "lightgbm", "artifacts": "packaged:lightgbm", "weight": weight}
                for name, weight in weights.items()
            },
        }
    )
    run = RunDirectory(settings.output)
    run.prepare()
    batches = ((path, table) for path in settings.input for table in read_rows(path))
    counts = ingest(batches, run, SHARD_ROWS, fail_on_reject=False, on_rows=lambda rows: None)
    run.write_manifest(Manifest.model_validate({**fingerprint(settings), "ingested": counts}))
    run.write_settings(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    for number in range(counts.shards):
        encoded = scorable(pq.read_table(run.shard(number)))
        rows = encoded["row"].to_numpy()
        for name, probabilities in members.items():
            write_table(_scores(encoded, rows, probabilities, (swapped or {}).get(name)), run.score(name, number))
    return run, settings


def _scores(encoded: pa.Table, rows: np.ndarray, plain: np.ndarray, swapped: np.ndarray | None) -> pa.Table:
    if swapped is None:
        return score_table(encoded["row"], Scores(plain[rows]), swap=False)
    as_scored = swapped[rows][:, [1, 0, 2]]
    return score_table(encoded["row"], Scores(np.concatenate([plain[rows], as_scored])), swap=True)
