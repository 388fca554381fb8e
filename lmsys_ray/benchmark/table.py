"""The figures of a benchmark: medians over its rounds, as a table and as JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lmsys_ray.benchmark.benchmark import Measurements
from lmsys_ray.benchmark.comparisons import Comparison, comparison
from lmsys_ray.benchmark.settings import BenchmarkSettings
from lmsys_ray.benchmark.sides.registry import BASELINE, ENCODER, FEATURES, JOB, REWARD, SIDES, peak_of
from lmsys_ray.storage.files import write_bytes

_WIDTH_OF_FILES = 160


@dataclass(frozen=True)
class Figures:
    """The figures of one side; each is the median over the rounds, shares and ratios computed for each round."""

    rows_per_second: float
    tokens_per_second: float
    """Without padding."""
    padding_share: float
    peak_share: float | None
    """The share of the speed of matrix products in the same round."""
    memory: int
    """Bytes, the maximum over all rounds."""
    difference: float | None
    """The largest difference of a probability from fp32, one row at a time."""
    ratio: float | None
    """Rows per second relative to the notebook's loop in the same round."""
    seconds: list[float]


def figures(found: Measurements, cuda: bool) -> dict[str, Figures]:
    """Returns the figures of every side that completed all its rounds."""
    lengths = found.rows.lengths
    work = found.shape.operations(lengths)
    base = [run.seconds for run in found.runs.get(BASELINE, [])]
    result = {}
    for name in SIDES:
        runs = found.runs.get(name, [])
        if not runs or name in found.failures:
            continue
        seconds = [run.seconds for run in runs]
        peaks = [run.answer["operations_per_second"] for run in found.runs.get(peak_of(name, cuda), [])]
        result[name] = Figures(
            rows_per_second=len(lengths) / median(seconds),
            tokens_per_second=int(lengths.sum()) / median(seconds),
            padding_share=1 - int(lengths.sum()) / runs[-1].answer["slots"],
            peak_share=_median([work / second / peak for second, peak in zip(seconds, peaks, strict=False)]),
            memory=max(run.memory for run in runs),
            difference=_difference(found, runs[-1].answer["probabilities"]),
            ratio=_median([first / second for first, second in zip(base, seconds, strict=False)]),
            seconds=seconds,
        )
    return result


def feature_figures(found: Measurements) -> dict[str, dict[str, float]]:
    """Returns rows per second, and the peak memory in bytes above that before, of the feature sides."""
    result = {}
    for name in FEATURES:
        runs = found.runs.get(name, [])
        if runs and name not in found.failures:
            result[name] = {
                "rows_per_second": median(run.answer["rows"] / run.seconds for run in runs),
                "memory": max(run.memory - run.answer["before"] for run in runs),
                "sum": runs[-1].answer["sum"],
            }
    return result


def job_figures(found: Measurements) -> dict[str, float]:
    """Returns tokens per second of the scorer alone and of the job, and by which share the job is slower.

    The share is the median over the rounds. Empty where either side did not complete.
    """
    rates = [[t.answer["tokens"] / t.answer["seconds"] for t in found.runs.get(name, [])] for name in JOB]
    if not all(rates) or found.failures.keys() & JOB.keys():
        return {}
    alone, job = rates
    overhead = median(1 - slower / faster for faster, slower in zip(alone, job, strict=True))
    return {**{name: median(rate) for name, rate in zip(JOB, rates, strict=True)}, "overhead": overhead}


def reward_figures(found: Measurements) -> Comparison | None:
    """Returns what it saves to compute the prompt of both sequences of a row once; None where a side has no figures."""
    return comparison(found, REWARD, sequences=2)


def encoder_figures(found: Measurements) -> Comparison | None:
    """Returns what sorted micro-batches save an encoder; None where a side has no figures."""
    return comparison(found, ENCODER)


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _difference(found: Measurements, probabilities: list[list[float]]) -> float | None:
    if found.reference is None:
        return None
    return float(np.abs(np.array(probabilities)[: len(found.reference)] - found.reference).max())


def show(found: Measurements, cuda: bool) -> None:
    """Prints the tables, and after them which sides failed and why."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=_WIDTH_OF_FILES)
    console.print(_sides_table(figures(found, cuda)))
    for name, runs in found.runs.items():
        if name.startswith("peak:"):
            speed = median(run.answer["operations_per_second"] for run in runs)
            console.print(f"{name}: {speed / 1e9:,.0f} GFLOP/s in the model's own products")
    if features := feature_figures(found):
        console.print(_features_table(features))
    if job := job_figures(found):
        console.print(_job_table(job))
        console.print(f"the job is {job['overhead']:.1%} slower than its scorer alone")
    if reward := reward_figures(found):
        title = f"a reward model's rows: {reward.rows:,} of {found.task.long_prompts:,} with prompts of half the tokens"
        console.print(_comparison_table(title, REWARD, reward))
        console.print(_reward_sentence(reward))
    if encoder := encoder_figures(found):
        console.print(_comparison_table(f"an encoder of MiniLM's sizes: {encoder.rows:,} rows", ENCODER, encoder))
        console.print(_encoder_sentence(encoder))
    for name, reason in found.failures.items():
        console.print(f"not measured: {name}: {reason}", soft_wrap=True)


def _sides_table(sides: dict[str, Figures]) -> Table:
    titles = ["", "rows/s", "tokens/s", "padding", "of peak", "memory", "max. difference", "× notebook"]
    table = _table("medians over the rounds", titles)
    for name, side in sides.items():
        table.add_row(
            f"{name}: {SIDES[name].title}",
            f"{side.rows_per_second:,.2f}",
            f"{side.tokens_per_second:,.0f}",
            f"{side.padding_share:.0%}",
            "" if side.peak_share is None else f"{side.peak_share:.0%}",
            f"{side.memory / 2**30:.2f} GiB",
            "" if side.difference is None else f"{side.difference:.1e}",
            "" if side.ratio is None else f"{side.ratio:.2f}",
        )
    return table


def _features_table(features: dict[str, dict[str, float]]) -> Table:
    table = _table("features of the LightGBM member; memory beyond what was there before", ["", "rows/s", "memory"])
    for name, side in features.items():
        table.add_row(FEATURES[name], f"{side['rows_per_second']:,.0f}", f"{side['memory'] / 2**20:,.0f} MiB")
    return table


def _job_table(job: dict[str, float]) -> Table:
    table = _table("the job beside its scorer, from the end of the first shard to that of the last", ["", "tokens/s"])
    for name, title in JOB.items():
        table.add_row(title, f"{job[name]:,.0f}")
    return table


def _comparison_table(title: str, sides: dict[str, str], figures: Comparison) -> Table:
    table = _table(title, ["", "rows/s", "tokens", "computed"])
    for name, said in sides.items():
        numbers = f"{figures.rows_per_second[name]:,.2f}", f"{figures.tokens:,}", f"{figures.computed[name]:,}"
        table.add_row(f"{name}: {said}", *numbers)
    return table


def _reward_sentence(figures: Comparison) -> str:
    ratio = figures.time_per_token
    relation = "" if ratio is None else f", {ratio:.2f} times as much"
    saved = (
        f"one call saves {figures.tokens_saved:.1%} of the tokens and {figures.time_saved:.1%} of the time{relation}"
    )
    return f"{saved}; {_agreement(figures)}"


def _encoder_sentence(figures: Comparison) -> str:
    return f"sorted rows are {figures.ratio:.2f} times as fast as padded ones; {_agreement(figures)}"


def _agreement(figures: Comparison) -> str:
    """Says how far the outputs of both sides differ."""
    said = f"outputs differ by {figures.difference:.1e} at most, "
    allowed = f"{figures.allowed:.1e}"
    return said + (f"{allowed} is allowed" if figures.equal else f"more than the {allowed} allowed: not comparable")


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def write(found: Measurements, settings: BenchmarkSettings, cuda: bool, path: Path) -> None:
    """Writes settings, device, figures and every round's seconds as JSON."""
    peaks = {
        name: [run.answer["operations_per_second"] for run in runs]
        for name, runs in found.runs.items()
        if name.startswith("peak:")
    }
    reward, encoder = reward_figures(found), encoder_figures(found)
    content: dict[str, Any] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if cuda else f"{_processor()}, {found.task.threads} threads",
        "torch": torch.__version__,
        "settings": settings.model_dump(),
        "rows": len(found.rows),
        "tokens": int(found.rows.lengths.sum()),
        "sides": {name: asdict(side) for name, side in figures(found, cuda).items()},
        "peaks": peaks,
        "features": feature_figures(found),
        "job": job_figures(found),
        "reward": {"long_prompts": found.task.long_prompts, **asdict(reward)} if reward else {},
        "encoder": asdict(encoder) if encoder else {},
        "failed": found.failures,
    }
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def _processor() -> str:
    """Returns the processor's name as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
