"""How good a trained member is on the rows held out, and the files that say so."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.metrics import METRICS, class_shares, estimate_metrics


def judged(
    product: str, rows: LabelledRows, training: np.ndarray, held_out: np.ndarray, probabilities: np.ndarray
) -> dict[str, dict[str, dict[str, float]]]:
    """Judges the product, by its name, and the class shares of the training rows on the held-out rows."""
    labels, groups = rows.labels[held_out], rows.groups[held_out]
    prior = np.broadcast_to(class_shares(rows.labels[training]), probabilities.shape)
    estimates = {
        product: estimate_metrics(probabilities, labels, groups),
        "prior": estimate_metrics(prior, labels, groups),
    }
    estimates[f"{product} minus prior"] = estimates[product] - estimates["prior"]
    return {name: estimate.figures() for name, estimate in estimates.items()}


def figures_table(figures: dict[str, Any], product: str) -> str:
    """Returns the figures of `judged` as a table in Markdown."""
    if product not in figures:
        return "None: it was trained on all rows.\n"
    table = "| on the held-out rows | " + " | ".join(name.replace("_", " ") for name in METRICS) + " |\n"
    table += "| --- " * (len(METRICS) + 1) + "|\n"
    for name in ("prior", product, f"{product} minus prior"):
        cells = (f"{f['value']:.4f} ({f['low']:.4f} to {f['high']:.4f})" for f in figures[name].values())
        table += f"| {name} | " + " | ".join(cells) + " |\n"
    return table + "\nIn brackets: 95 % intervals, a bootstrap over prompts. The prior always says the class shares.\n"


def write_probabilities(path: Path, ids: list[str], probabilities: np.ndarray) -> None:
    """Writes a CSV of ids and probabilities [rows, 3] of held-out rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *CLASSES])
        for identity, row in zip(ids, probabilities, strict=True):
            writer.writerow([identity, *(f"{probability:.6f}" for probability in row)])


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
