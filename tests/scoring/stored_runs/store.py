"""Stores a run of the present version for the tests of later ones: `python -m tests.scoring.stored_runs.store 0.2.0`.

What is stored: input, settings and models of a job; `finished`, its run directory; `run`, that of the same job whose
first start had two of the four members, and whose second was killed in the middle.
"""

import csv
import gzip
import io
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.fault_tolerance.jobs import finish, scored_files, start

HERE = Path(__file__).parent
ROWS, SHARD_ROWS = 60, 10
KEPT = {"judge": [2, 4], "reward": [0, 1, 4], "trees": [0, 1, 2, 4], "others": [*range(6)]}
"""The shards of the killed run that keep their scores, as far as it had scored them."""

CHAT = "{% for message in messages %}{{ '\\n' + message['role'] + ': ' + message['content'] }}{% endfor %}"
MODELS, LANGUAGES = ("ant", "bee", "cat", "dog"), ("English", "German", "French")
VERBS = ("compare", "describe", "draw", "explain", "plan", "rhyme", "summarise")
NOUNS = ("bakery", "garden", "harbour", "ladder", "lantern", "market", "orchard", "tunnel", "violin")
ENDS = ("", " soon", "?", ".", " xyz", " bc", "!", " now", " 7")


def write_input(folder: Path) -> None:
    """Writes invented conversations with labels, models and languages, a broken row, and one whose id repeats."""
    generator = random.Random(7)

    def cell(most: int) -> str:
        words = [f"{generator.choice(VERBS)} the {generator.choice(NOUNS)}" for _ in range(generator.randint(1, most))]
        return json.dumps([" ".join(words) + generator.choice(ENDS)])

    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        cells, winner = ("prompt", "response_a", "response_b"), ("winner_model_a", "winner_model_b", "winner_tie")
        writer.writerow(["id", "model_a", "model_b", *cells, *winner, "language"])
        for n in range(ROWS):
            prompt = '["open' if n == 23 else cell(3)
            name = "row-11" if n == 41 else f"row-{n}"
            votes = generator.choice([(1, 0, 0), (0, 1, 0), (0, 0, 1)])
            names = generator.sample(MODELS, 2)
            writer.writerow([name, *names, prompt, cell(4), cell(4), *votes, generator.choice(LANGUAGES)])
    with (folder / "others.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "a", "b", "tie"])
        shares = [(0.5, 0.25, 0.25), (0.125, 0.625, 0.25), (0.25, 0.25, 0.5)]
        writer.writerows([f"row-{n}", *generator.choice(shares)] for n in range(ROWS) if n != 37)


def make_model(folder: Path, labels: int) -> None:
    """Saves a model with the same bits on every CPU: it adds nothing to embeddings of 1 and -1, read by eighths."""
    import torch
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    from tests.tiny_llama import SIZES, make_tokenizer

    sizes = {**SIZES, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**{**sizes, "num_key_value_heads": 1, "num_labels": labels, "max_position_embeddings": 512})
    config.rms_norm_eps = 1e-12
    generator = torch.Generator().manual_seed(labels)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weights.zero_()
            elif "embed_tokens" in name:
                weights.copy_(torch.randint(0, 2, weights.shape, generator=generator) * 2 - 1)
            elif "score" in name:
                weights.copy_(torch.randint(-2, 3, weights.shape, generator=generator) / 8)
    model.save_pretrained(folder)
    make_tokenizer(folder)


def make_trees(folder: Path) -> None:
    """Fits boosters on the input, so that digests of it lie beside them."""
    from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
    from lmsys_ray.members.lightgbm.training.train import train_lightgbm

    small = {"rounds": 4, "leaves": 3, "rows_per_leaf": 5, "views": ["all"], "threads": 1, "turns": "joined"}
    whole = LightGBMOptions.model_validate({**small, "linear_share": 0.0})
    train_lightgbm([str(folder / "in.csv")], folder / "trees", 2, -1, whole, say=print)


def settings() -> dict[str, Any]:
    """Returns the settings of the job; all paths are relative."""
    exact = {"dtype": "float32", "device": "cpu", "max_length": 512}
    chat = {"chat_template": CHAT, "link": "davidson", "scale": 0.5, "tie": 0.75}
    members = {
        "judge": {"kind": "classifier", "model": "judge", **exact, "swap": True, "weight": 0.5},
        "reward": {"kind": "reward", "model": "reward", **exact, **chat, "weight": 0.25},
        "trees": {"kind": "lightgbm", "artifacts": "trees", "workers": 1, "weight": 0.125},
        "others": {"kind": "scores", "path": "others.csv", "weight": 0.125},
    }
    outputs = {"preferences": {"format": "trl", "margin": 0.1}, "doubtful": 5}
    values = {"input": "in.csv", "output": "run", "shard_rows": SHARD_ROWS, "max_error_rate": 0.1}
    return {**values, "outputs": outputs, "report": {"enabled": False}, "members": members}


def make(folder: Path) -> None:
    """Makes the job and runs it twice in `folder`: to its end, and killed."""
    write_input(folder)
    make_model(folder / "judge", 3)
    make_model(folder / "reward", 1)
    make_trees(folder)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(), sort_keys=False))
    without = ["--set", "members.judge=null", "--set", "members.reward=null"]
    for arguments in (["--output", "finished"], without):
        code, said = finish(folder, *arguments)
        assert code == 0, said
    _kill_in_the_middle(folder)
    for path in folder.glob("*/settings.yaml"):
        path.write_text(path.read_text().replace(f"output: {folder}/", "output: "))


def _kill_in_the_middle(folder: Path) -> None:
    process = start(folder)
    while not [*folder.glob("run/scores/reward/*[0-9].parquet")] and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    print(process.communicate()[0])
    for path in scored_files(folder):
        if int(path.stem) not in KEPT[path.parent.name]:
            path.unlink()
    (folder / "run" / "lock.json").unlink()


def pack(folder: Path, file: Path) -> None:
    """Packs a folder without anything of this machine or hour in the archive."""
    found = io.BytesIO()

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(fileobj=found, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=plain)
    file.write_bytes(gzip.compress(found.getvalue(), mtime=0))


def main(version: str) -> None:
    folder = Path(tempfile.mkdtemp())
    make(folder)
    pack(folder, HERE / f"{version}.tar.gz")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
