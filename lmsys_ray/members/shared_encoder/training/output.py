"""The finished member: encoder, tokenizer and head with a note of how rows are read, figures, curves and a card."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.sources import SCORING
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.data.trained_rows import write_digests
from lmsys_ray.members.shared_encoder.training.files import TrainingFiles
from lmsys_ray.members.shared_encoder.training.options import SCORING_SETTINGS, TrainingSettings
from lmsys_ray.members.training.curves import draw_curves
from lmsys_ray.members.training.figures import figures_table, judged, write_json, write_probabilities
from lmsys_ray.metrics import class_shares, log_loss

PRODUCT = "shared encoder"


def finish(
    settings: TrainingSettings, files: TrainingFiles, rows: LabelledRows, training: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """Completes the directory in which a worker saved the weights; returns the figures.

    `training` and `held_out` are indices into `rows`, the latter in the order of the saved probabilities.
    """
    metrics, result = files.read_metrics(), files.result
    last = metrics[-1]
    figures: dict[str, Any] = {
        "rows": {"training": len(training), "held_out": len(held_out), "left_out": rows.rejected},
        "fold": settings.fold,
        "steps": {"done": last["step"], "planned": last["steps"], "best": last["best_step"]},
        "seconds": last["seconds"],
    }
    prior_loss = None
    if len(held_out):
        probabilities = files.load_probabilities(len(held_out))
        figures |= judged(PRODUCT, rows, training, held_out, probabilities)
        shares = np.broadcast_to(class_shares(rows.labels[training]), (len(held_out), len(CLASSES)))
        prior_loss = log_loss(shares, rows.labels[held_out])
        write_probabilities(result / "out_of_fold.csv", [rows.ids[i] for i in held_out], probabilities)
    noted = {key: getattr(settings, key) for key in SCORING_SETTINGS} | files.load_how_computed()
    write_json(result / SCORING, noted)
    write_json(result / "metrics.json", figures)
    write_digests(result, rows.conversations.take(training), "auto")
    (result / "metrics.jsonl").write_text(files.metrics.read_text(encoding="utf-8"), encoding="utf-8")
    draw_curves(metrics, prior_loss, result / "curves.png")
    (result / "README.md").write_text(model_card(settings, figures), encoding="utf-8")
    return figures


def model_card(settings: TrainingSettings, figures: dict[str, Any]) -> str:
    """Returns the README of a shared encoder: what it is, how it scores, its metrics, and how it was trained."""
    member = {"kind": "shared_encoder", "model": settings.output}
    member |= {key: getattr(settings, key) for key in SCORING_SETTINGS}
    lines = "\n".join(f"    {key}: {json.dumps(value)}" for key, value in member.items() if value is not None)
    count = figures["rows"]
    table = figures_table(figures, PRODUCT)
    return f"""---
base_model: {json.dumps(settings.model)}
library_name: transformers
pipeline_tag: text-classification
---
# Shared encoder for pairwise preference

Judges which of two responses people prefer: one encoder reads each response with its prompt, and `head.safetensors`
turns both mean states into three labels, {", ".join(CLASSES)}, in this order. A member of a run:

```yaml
members:
  encoder:
{lines}
```

## Figures

{table}
Trained on {count["training"]:,} rows; fold {settings.fold} of {settings.folds} (split by prompt, seed {settings.seed})
was held out with {count["held_out"]:,} rows. Weights of step {figures["steps"]["best"]} of
{figures["steps"]["planned"]} ({figures["steps"]["done"]} done, {figures["seconds"]:,.0f} s).

## Training

`{_command(settings)}`

Its licence follows those of the base model and of the labelled rows.
"""


def _command(settings: TrainingSettings) -> str:
    """Returns the command that trains the same member, with every option that is not the default."""
    changed = settings.model_dump(exclude_defaults=True, exclude={"input", "output", "model", "fold"})
    sets = [f"--set '{key}={value}'" for key, value in changed.items()]
    flags = f"--input {' '.join(settings.input)} --output {settings.output} --model {settings.model}"
    return " ".join(["python jobs/train_shared_encoder.py", flags, f"--fold {settings.fold}", *sets])
