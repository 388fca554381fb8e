"""What a LightGBM training writes beside the boosters: metrics on held-out rows, and their probabilities."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.members.lightgbm.training.held_out import HeldOut, Judged
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
from lmsys_ray.metrics import estimate_metrics, log_loss

METRICS_FILE = "metrics.json"
PROBABILITIES_FILE = "out_of_fold.csv"

Figures = dict[str, Any]


def figures(held_out: HeldOut, options: LightGBMOptions) -> Figures:
    """Returns what `metrics.json` says: of each fold, of all rows held out, and of those joined to several turns."""
    rows = held_out.rows
    result: Figures = {
        "rows": {"used": len(rows.ids), "left_out": rows.rejected},
        "options": options.model_dump(mode="json"),
        "folds": {name: _fold(held_out, name) for name in held_out.rounds},
    }
    if held_out.single:
        result["held_out"] = _estimates(Judged.all_of(list(held_out.single.values())))
    if held_out.joined:
        result["joined"] = _estimates(Judged.all_of(list(held_out.joined.values())))
    return result


def _fold(held_out: HeldOut, name: str) -> Figures:
    judged = held_out.single[name]
    result: Figures = {
        "rows": len(judged.labels),
        "rounds": held_out.rounds[name],
        "log_loss": {
            kind: log_loss(probabilities, judged.labels)
            for kind, probabilities in (("lightgbm", judged.member), ("prior", judged.prior), ("own", judged.own))
        },
        "difference": _differences(judged),
    }
    if name in held_out.joined:
        result["joined"] = {
            "rows": len(held_out.joined[name].labels),
            "difference": _differences(held_out.joined[name]),
        }
    return result


def _differences(judged: Judged) -> Figures:
    """Returns the log loss against both kinds of class shares, with intervals."""
    return {
        f"lightgbm minus {kind}": found["log_loss"]
        for kind in ("prior", "own")
        if (found := _estimates(judged, kind)[f"lightgbm minus {kind}"])
    }


def _estimates(judged: Judged, kind: str = "prior") -> Figures:
    estimates = {
        "lightgbm": estimate_metrics(judged.member, judged.labels, judged.groups),
        kind: estimate_metrics(getattr(judged, kind), judged.labels, judged.groups),
    }
    estimates[f"lightgbm minus {kind}"] = estimates["lightgbm"] - estimates[kind]
    return {name: estimate.figures() for name, estimate in estimates.items()}


def write_figures(directory: Path, held_out: HeldOut, result: Figures) -> None:
    """Writes `metrics.json`, and where rows were held out `out_of_fold.csv`: id, a, b, tie, fold, label, prompt.

    `label` is the class that people chose, `prompt` the number of the prompt: rows of one number share it.
    """
    (directory / METRICS_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    judged = np.flatnonzero(~np.isnan(held_out.probabilities[:, 0]))
    if not len(judged):
        return
    rows = held_out.rows
    with (directory / PROBABILITIES_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *CLASSES, "fold", "label", "prompt"])
        for row in judged:
            probabilities = (f"{value:.6f}" for value in held_out.probabilities[row])
            fold, label = held_out.names[held_out.assigned[row]], CLASSES[rows.labels[row]]
            writer.writerow([rows.ids[row], *probabilities, fold, label, rows.groups[row]])
