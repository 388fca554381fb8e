"""Small real jobs, run as users run them, that tests may do harm to."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.storage.directories import atomic_directory
from tests.members.lightgbm.fitted import fit
from tests.members.lightgbm.texts import conversations
from tests.tiny_llama import make_adapter, make_model

ROOT = Path(__file__).parent.parent.parent
POISON = Path(__file__).parent / "poison"


def make_lightgbm(folder: Path) -> dict[str, object]:
    """Saves a small LightGBM member and returns its settings."""
    fitted = fit()
    vocabularies = (VectorizerSettings.of(fitted.cvec), VectorizerSettings.of(fitted.ccvec))
    with atomic_directory(folder / "lightgbm") as aside:
        save(Artifacts("notebook", vocabularies, [model.booster_ for model in fitted.models]), aside)
    return {"kind": "lightgbm", "artifacts": str(folder / "lightgbm"), "weight": 0.4, "workers": 1}


def make_llama(folder: Path) -> dict[str, object]:
    """Saves a tiny Llama member and returns its settings."""
    make_model(folder / "llama")
    make_adapter(folder / "adapter")
    paths = {"model": str(folder / "llama"), "adapter": str(folder / "adapter")}
    exact = {"dtype": "float32", "max_length": 96, "batch_tokens": 4096}
    return {"kind": "llama", **paths, **exact, "weight": 0.6}


def write_input(path: Path, rows: int, marked: Mapping[int, str] | None = None) -> list[str]:
    """Writes `rows` conversations, some `marked` in their prompt, and returns their ids."""
    ids = [f"id-{n * 7 % rows}-{n}" for n in range(rows)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for n, row in enumerate(conversations(rows, seed=2).to_pylist()):
            row["prompt"] = (marked or {}).get(n) or row["prompt"]
            writer.writerow([ids[n], *(_as_list(row[cell]) for cell in CELLS)])
    return ids


def _as_list(cell: str) -> str:
    """Returns a cell as a list of turns: a file that mixes both forms is warned of."""
    return cell if cell.startswith("[") else json.dumps([cell])


def write_settings(folder: Path, members: Mapping[str, object], **settings: object) -> None:
    values = {"input": str(folder / "in.csv"), "output": str(folder / "run"), "shard_rows": 16, **settings}
    (folder / "run.yaml").write_text(yaml.safe_dump({**values, "members": dict(members)}))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", str(ROOT / "jobs" / "score.py"), "--config", "run.yaml", *arguments]


def environment(folder: Path, poisoned: bool = False) -> dict[str, str]:
    path = [str(POISON)] * poisoned + [str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HANG_FLAG": str(folder / "hang.flag")}


def start(
    folder: Path, *arguments: str, poisoned: bool = False, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts the job of `write_settings` in a process group of its own, so that all of it can be ended.

    `variables` come on top of its environment.
    """
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env={**environment(folder, poisoned), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, *arguments: str, poisoned: bool = False) -> tuple[int, str]:
    """Runs the job to its end and returns its exit code and what it said."""
    process = start(folder, *arguments, poisoned=poisoned)
    said, _ = process.communicate(timeout=900)
    return process.returncode, said


def submission(folder: Path) -> list[list[str]]:
    """Returns the lines of the submission without the header."""
    with (folder / "run" / "submission.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def scored_files(folder: Path) -> Sequence[Path]:
    return sorted((folder / "run" / "scores").glob("*/[0-9]*.parquet"))
