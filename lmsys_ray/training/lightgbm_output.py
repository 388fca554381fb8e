"""What a LightGBM training leaves beside the boosters: figures on the rows held out, and their probabilities."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.metrics import class_shares, judge, log_loss
from lmsys_ray.training.labelled_rows import LabelledRows
from lmsys_ray.training.lightgbm_settings import LightGBMOptions

METRICS_FILE = "metrics.json"
PROBABILITIES_FILE = "out_of_fold.csv"


def figures(
    rows: LabelledRows,
    names: list[str],
    assigned: np.ndarray,
    held_out: np.ndarray,
    rounds: dict[str, list[int]],
    options: LightGBMOptions,
) -> dict[str, Any]:
    """Returns what `metrics.json` says.

    `names` are those of the folds, `assigned` int64 [rows] the fold of each row, `held_out` [rows, 3] the
    probabilities by boosters that did not see the row, NaN where there are none; `rounds` those of each fold's
    boosters.
    """
    result: dict[str, Any] = {
        "rows": {"used": len(rows.ids), "left_out": rows.rejected},
        "options": options.model_dump(mode="json"),
        "folds": {},
    }
    prior = np.full_like(held_out, np.nan)
    for number, name in enumerate(names):
        inside = assigned == number
        if name not in rounds:
            continue
        prior[inside] = class_shares(rows.labels[~np.isin(rows.groups, rows.groups[inside])])
        losses = {
            kind: log_loss(probabilities[inside], rows.labels[inside])
            for kind, probabilities in (("lightgbm", held_out), ("prior", prior))
        }
        result["folds"][name] = {"rows": int(inside.sum()), "rounds": rounds[name], "log_loss": losses}
    if rounds:
        result["held_out"] = _judged(rows, held_out, prior)
    return result


def _judged(rows: LabelledRows, held_out: np.ndarray, prior: np.ndarray) -> dict[str, Any]:
    judged = ~np.isnan(held_out[:, 0])
    labels, groups = rows.labels[judged], rows.groups[judged]
    estimates = {"lightgbm": judge(held_out[judged], labels, groups), "prior": judge(prior[judged], labels, groups)}
    estimates["lightgbm minus prior"] = estimates["lightgbm"] - estimates["prior"]
    return {name: estimate.figures() for name, estimate in estimates.items()}


def write_figures(
    directory: Path,
    rows: LabelledRows,
    names: list[str],
    assigned: np.ndarray,
    held_out: np.ndarray,
    result: dict[str, Any],
) -> None:
    """Writes `metrics.json`, and where rows were held out `out_of_fold.csv`: id, a, b, tie, fold."""
    (directory / METRICS_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    judged = np.flatnonzero(~np.isnan(held_out[:, 0]))
    if not len(judged):
        return
    with (directory / PROBABILITIES_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *CLASSES, "fold"])
        for row in judged:
            writer.writerow([rows.ids[row], *(f"{value:.6f}" for value in held_out[row]), names[assigned[row]]])
