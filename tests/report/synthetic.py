"""Runs made without a job, by the package's own writers: labelled, with names, both orders, shares of texts kept."""

import calendar
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import SHARD
from lmsys_ray.evaluation.labelled_scores import settings_of
from lmsys_ray.evaluation.leaderboard import make_leaderboard
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested, IngestFingerprint, InputFile, Manifest
from lmsys_ray.scoring.settings import Settings

BEGAN = "2026-01-02T03:04:05Z"
MEMBERS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "classifier", "model": "models/llama", "swap": True, "weight": 0.6, "max_length": 512},
    "lightgbm": {"kind": "lightgbm", "artifacts": "models/lightgbm", "weight": 0.4},
}
SOURCES, LANGUAGES, MODELS = ("arena", "books", "code"), ("English", "German"), ("ant", "bee", "cat", "dog")


def texts(rows: Sequence[int], size: int) -> list[str]:
    """Returns texts of about `size` characters."""
    return [json.dumps([f"text {row} " + "lorem ipsum " * (size // 12)]) for row in rows]


def shard_table(first: int, rows: int, size: int, carried: Sequence[str], rng: np.random.Generator) -> pa.Table:
    numbers = range(first, first + rows)
    table = {
        "row": pa.array(numbers, pa.int64()),
        "id": [f"id{n}" for n in numbers],
        "prompt": pa.array(texts([n // 2 for n in numbers], size // 4), pa.large_string()),
        "response_a": pa.array(texts(numbers, size), pa.large_string()),
        "response_b": pa.array(texts(numbers, size), pa.large_string()),
        "rejected": pa.array(np.zeros(rows, bool)),
        "label": pa.array(rng.integers(3, size=rows), pa.int8(), mask=rng.random(rows) < 0.1),
        "model_a": [MODELS[n] for n in rng.integers(4, size=rows)],
        "model_b": [MODELS[n] for n in rng.integers(4, size=rows)],
        "language": [LANGUAGES[n] for n in rng.integers(2, size=rows)],
        "source": [SOURCES[n] for n in rng.integers(3, size=rows)],
    }
    names = [*SHARD.names, *(name for name in CARRIED.names if name in carried)]
    schema = pa.schema([*SHARD, *(CARRIED.field(name) for name in names[len(SHARD) :])])
    return pa.table([pa.array(table[name], schema.field(name).type) for name in names], schema=schema)


def scores_table(shard: pa.Table, both: bool, rng: np.random.Generator) -> pa.Table:
    """Returns scores that know something of the labels."""
    rows = shard.num_rows
    label = shard["label"].fill_null(0).to_numpy() if "label" in shard.column_names else np.zeros(rows, np.int8)

    def drawn() -> np.ndarray:
        return rng.dirichlet([2, 2, 1], rows) * 0.7 + np.eye(3)[label] * 0.3

    plain, swapped = drawn(), drawn()
    columns: dict[str, Any] = {"row": shard["row"]}
    for place, name in enumerate(("a", "b", "tie")):
        columns[name] = ((plain + swapped) / 2 if both else plain)[:, place].astype(np.float32)
    if both:
        for order, values in (("plain", plain), ("swapped", swapped)):
            columns |= {f"{n}_{order}": values[:, i].astype(np.float32) for i, n in enumerate(("a", "b", "tie"))}
        columns["tokens"] = rng.integers(20, 1024, rows)
        for name in ("kept_prompt", "kept_a", "kept_b"):
            columns[name] = np.where(rng.random(rows) < 0.2, rng.random(rows), 1).astype(np.float32)
    return pa.table(columns)


def make_run(
    path: Path,
    rows: int = 400,
    shard_rows: int = 100,
    members: Mapping[str, dict[str, Any]] = MEMBERS,
    carried: Sequence[str] = CARRIED.names[:5],
    scored: Mapping[str, int] | None = None,
    size: int = 100,
    exit_code: int | None = 0,
    **changes: object,
) -> RunDirectory:
    """Writes a run; of each member so many shards are scored, by default all, and then there is a leaderboard too."""
    run, rng = RunDirectory(path), np.random.default_rng(0)
    path.mkdir(parents=True)
    run.prepare()
    values = {"input": ["in.csv"], "output": str(path), "shard_rows": shard_rows, "members": dict(members), **changes}
    settings = Settings.model_validate(values)
    run.write_settings(yaml.safe_dump(settings.model_dump(mode="json")))
    shards = -(-rows // shard_rows)
    reading = {"carried": list(carried)} if carried else {}
    seconds = {"start of Ray": 2.0, "ingest": 3.0, "passes": 20.0, "pass llama": 20.0, "join": 1.0, "total": 27.0}
    start: dict[str, Any] = {"began": BEGAN, "lmsys_ray": "0.1.0", "host": "here", "pid": 1, "exit": exit_code}
    if exit_code == 0:
        replica = {"node": "n", "shards": 2, "rows": 200, "computed": 14.0, "began": 5.5, "ended": 24.0}
        start |= {
            "seconds": seconds,
            "deaths": {"llama": 2},
            "died_at": {"llama": [20.0, 30.0]},
            "replicas": {"llama": [replica, replica]},
        }
    manifest = Manifest(
        lmsys_ray="0.1.0",
        ingest=IngestFingerprint(
            input=[InputFile(path="in.csv", bytes=1, digest="d")],
            limit=None,
            cells="auto",
            shard_rows=shard_rows,
            reading=reading,
        ),
        members={name: dict(values) for name, values in members.items()},
        ingested=Ingested(rows=rows, lines=rows, shards=shards),
        starts=[start],
    )
    run.write_manifest(manifest)
    run.rejects.write_text("")
    began = calendar.timegm(time.strptime(BEGAN, "%Y-%m-%dT%H:%M:%SZ"))
    for number in range(shards):
        first = number * shard_rows
        shard = shard_table(first, min(shard_rows, rows - first), size, carried, rng)
        run.write_shard(number, shard)
        os.utime(run.path / "shards" / f"{number:05d}.parquet", (began + 4 + number / shards,) * 2)
        for name, member in members.items():
            if scored is None or number < scored.get(name, 0):
                run.write_scores(name, number, scores_table(shard, bool(member.get("swap")), rng))
                at = began + 8 + 16 * number / shards
                os.utime(run.path / "scores" / name / f"{number:05d}.parquet", (at, at))
    if exit_code == 0 and "model_a" in carried:
        make_leaderboard(run, settings_of(run), settings.outputs.leaderboard, run.path)
    return run


if __name__ == "__main__":
    make_run(Path(sys.argv[1]), rows=int(sys.argv[2]), shard_rows=1024, size=500)
