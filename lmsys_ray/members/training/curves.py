"""Draws the learning curves of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_TRAINING, _VALIDATION, _PRIOR, _RATE = "#0072B2", "#D55E00", "#666666", "#009E73"


def draw_curves(metrics: Sequence[dict[str, Any]], prior_loss: float | None, path: str | Path) -> None:
    """Writes a PNG: log loss of training and validation over the steps, and the learning rate below.

    `metrics` are the lines of metrics.jsonl; `prior_loss` is the log loss of always predicting the class shares, on the
    validation rows.
    """
    steps = [line["step"] for line in metrics]
    figure = Figure(figsize=(6.4, 4.8), dpi=160, layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    losses.plot(steps, [line["train_loss"] for line in metrics], color=_TRAINING, marker="o", ms=3, label="training")
    judged = [line for line in metrics if "validation_loss" in line]
    if judged:
        values = [line["validation_loss"] for line in judged]
        losses.plot([line["step"] for line in judged], values, color=_VALIDATION, marker="s", ms=3, label="validation")
        for best in (line for line in judged if line["step"] == metrics[-1]["best_step"]):
            losses.plot(best["step"], best["validation_loss"], "o", ms=10, mfc="none", color=_VALIDATION, label="best")
    if prior_loss is not None:
        losses.axhline(prior_loss, color=_PRIOR, linestyle=(0, (4, 3)), linewidth=1, label="class shares")
    losses.set_ylabel("log loss (nats)")
    losses.legend(frameon=False)
    rate.plot(steps, [line["learning_rate"] for line in metrics], color=_RATE)
    rate.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    figure.savefig(path, format="png")
