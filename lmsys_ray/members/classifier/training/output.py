"""The finished adapter or model: beside its weights the text settings, figures, curves and model card."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.checks import HEAD_ONLY
from lmsys_ray.checkpoints.sources import SCORING
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.data.trained_rows import write_digests
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.curves import draw_curves
from lmsys_ray.members.training.figures import figures_table, judged, write_json, write_probabilities
from lmsys_ray.metrics import class_shares, log_loss


def finish(
    settings: TrainingSettings, files: TrainingFiles, rows: LabelledRows, training: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """Completes the directory in which a worker saved the weights; returns the figures.

    `training` and `held_out` are indices into `rows`, the latter in the order of the saved probabilities.
    """
    metrics = files.read_metrics()
    figures: dict[str, Any] = {
        "rows": {"training": len(training), "held_out": len(held_out), "left_out": rows.rejected},
        "fold": settings.fold,
        "steps": {"done": metrics[-1]["step"], "planned": metrics[-1]["steps"], "best": metrics[-1]["best_step"]},
        "seconds": metrics[-1]["seconds"],
    }
    prior_loss = None
    if len(held_out):
        probabilities = files.load_probabilities(len(held_out))
        figures |= judged(settings.product, rows, training, held_out, probabilities)
        validated = rows.labels[held_out[: settings.validation_rows]]
        shares = np.broadcast_to(class_shares(rows.labels[training]), (len(validated), len(CLASSES)))
        prior_loss = log_loss(shares, validated)
        write_probabilities(files.result / "out_of_fold.csv", [rows.ids[i] for i in held_out], probabilities)
    head_only = {HEAD_ONLY: True} if settings.head_only and settings.lora == "adapter" else {}
    write_json(files.result / SCORING, settings.noted() | files.load_how_computed() | head_only)
    write_json(files.result / "metrics.json", figures)
    write_digests(files.result, rows.conversations.take(training), "auto")
    (files.result / "metrics.jsonl").write_text(files.metrics.read_text(encoding="utf-8"), encoding="utf-8")
    draw_curves(metrics, prior_loss, files.result / "curves.png")
    (files.result / "README.md").write_text(model_card(settings, figures), encoding="utf-8")
    return figures


def model_card(settings: TrainingSettings, figures: dict[str, Any]) -> str:
    """Returns the README of an adapter or a model: what it is, how it scores, its metrics, and how it was trained."""
    named = settings.scoring()
    member = {"kind": named.kind, "model": named.model, "adapter": named.adapter, **settings.noted()}
    lines = "\n".join(f"    {key}: {json.dumps(value)}" for key, value in member.items() if value is not None)
    count = figures["rows"]
    return f"""---
base_model: {json.dumps(settings.model)}
library_name: {"peft" if settings.lora == "adapter" else "transformers"}
pipeline_tag: text-classification
---
# {"LoRA adapter" if settings.lora == "adapter" else "Classifier"} for pairwise preference

Judges which of two responses people prefer: three labels, {", ".join(CLASSES)}, in this order. A member of a run:

```yaml
members:
  llama:
{lines}
```

## Figures

{figures_table(figures, settings.product)}
Trained on {count["training"]:,} rows; fold {settings.fold} of {settings.folds} (split by prompt, seed {settings.seed})
was held out with {count["held_out"]:,} rows. Weights of step {figures["steps"]["best"]} of
{figures["steps"]["planned"]} ({figures["steps"]["done"]} done, {figures["seconds"]:,.0f} s).

## Training

`{_command(settings)}`

Its licence follows those of the base model and of the labelled rows.
"""


def _command(settings: TrainingSettings) -> str:
    """Returns the command that trains the same again, with every option that is not the default."""
    named = {"input", "output", "model", "fold"}
    changed = settings.model_dump(exclude_defaults=True, exclude=named)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in changed.items()}
    sets = [f"--set '{key}={value}'" for key, value in values.items()]
    flags = f"--input {' '.join(settings.input)} --output {settings.output} --model {settings.model}"
    return " ".join(["python jobs/train_classifier.py", flags, f"--fold {settings.fold}", *sets])
