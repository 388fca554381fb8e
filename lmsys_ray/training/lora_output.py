"""The finished adapter: a PEFT directory with its text settings, figures, curves and model card."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.members.llama.checks import HEAD_ONLY
from lmsys_ray.metrics import METRICS, class_shares, judge, log_loss
from lmsys_ray.training.labelled_rows import LabelledRows
from lmsys_ray.training.lora_curves import draw_curves
from lmsys_ray.training.lora_files import TrainingFiles
from lmsys_ray.training.lora_settings import SCORING_SETTINGS, LoraSettings


def finish(
    settings: LoraSettings, files: TrainingFiles, rows: LabelledRows, training: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """Completes the adapter's directory beside the weights that a worker saved there; returns the figures.

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
        figures |= _judged(rows, training, held_out, probabilities)
        validated = rows.labels[held_out[: settings.validation_rows]]
        shares = np.broadcast_to(class_shares(rows.labels[training]), (len(validated), len(CLASSES)))
        prior_loss = log_loss(shares, validated)
        _write_probabilities(files.adapter / "out_of_fold.csv", [rows.ids[i] for i in held_out], probabilities)
    scoring = {key: getattr(settings, key) for key in SCORING_SETTINGS} | files.load_how_computed()
    _write_json(files.adapter / "scoring.json", scoring | ({HEAD_ONLY: True} if settings.head_only else {}))
    _write_json(files.adapter / "metrics.json", figures)
    (files.adapter / "metrics.jsonl").write_text(files.metrics.read_text(encoding="utf-8"), encoding="utf-8")
    draw_curves(metrics, prior_loss, files.adapter / "curves.png")
    (files.adapter / "README.md").write_text(model_card(settings, figures), encoding="utf-8")
    return figures


def _judged(
    rows: LabelledRows, training: np.ndarray, held_out: np.ndarray, probabilities: np.ndarray
) -> dict[str, dict[str, dict[str, float]]]:
    """Judges the adapter and the class shares of the training rows on the held-out rows."""
    labels, groups = rows.labels[held_out], rows.groups[held_out]
    prior = np.broadcast_to(class_shares(rows.labels[training]), probabilities.shape)
    estimates = {"adapter": judge(probabilities, labels, groups), "prior": judge(prior, labels, groups)}
    estimates["adapter minus prior"] = estimates["adapter"] - estimates["prior"]
    return {name: estimate.figures() for name, estimate in estimates.items()}


def model_card(settings: LoraSettings, figures: dict[str, Any]) -> str:
    """Returns the README of an adapter: what it is, how it scores, what it reached, and how it was made."""
    member = {"kind": "llama", "model": settings.model, "adapter": settings.output}
    member |= {key: getattr(settings, key) for key in SCORING_SETTINGS}
    lines = "\n".join(f"    {key}: {json.dumps(value)}" for key, value in member.items() if value is not None)
    count = figures["rows"]
    return f"""---
base_model: {json.dumps(settings.model)}
library_name: peft
pipeline_tag: text-classification
---
# LoRA adapter for pairwise preference

Judges which of two responses people prefer: three labels, {", ".join(CLASSES)}, in this order. A member of a run:

```yaml
members:
  llama:
{lines}
```

## Figures

{_figures_table(figures)}
Trained on {count["training"]:,} rows; fold {settings.fold} of {settings.folds} (split by prompt, seed {settings.seed})
was held out with {count["held_out"]:,} rows. Weights of step {figures["steps"]["best"]} of
{figures["steps"]["planned"]} ({figures["steps"]["done"]} done, {figures["seconds"]:,.0f} s).

## Training

`{_command(settings)}`

Its licence follows those of the base model and of the labelled rows.
"""


def _figures_table(figures: dict[str, Any]) -> str:
    if "adapter" not in figures:
        return "None: it was trained on all rows.\n"
    table = "| on the held-out rows | " + " | ".join(name.replace("_", " ") for name in METRICS) + " |\n"
    table += "| --- " * (len(METRICS) + 1) + "|\n"
    for name in ("prior", "adapter", "adapter minus prior"):
        cells = (f"{f['value']:.4f} ({f['low']:.4f} to {f['high']:.4f})" for f in figures[name].values())
        table += f"| {name} | " + " | ".join(cells) + " |\n"
    return table + "\nIn brackets: 95 % intervals, a bootstrap over prompts. The prior always says the class shares.\n"


def _command(settings: LoraSettings) -> str:
    """Returns the command that trains the same adapter: every option that is not the default."""
    named = {"input", "output", "model", "fold"}
    changed = settings.model_dump(exclude_defaults=True, exclude=named)
    values = {key: json.dumps(value) if isinstance(value, list) else value for key, value in changed.items()}
    sets = [f"--set '{key}={value}'" for key, value in values.items()]
    flags = f"--input {' '.join(settings.input)} --output {settings.output} --model {settings.model}"
    return " ".join(["python jobs/train_lora.py", flags, f"--fold {settings.fold}", *sets])


def _write_probabilities(path: Path, ids: list[str], probabilities: np.ndarray) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *CLASSES])
        for identity, row in zip(ids, probabilities, strict=True):
            writer.writerow([identity, *(f"{probability:.6f}" for probability in row)])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
