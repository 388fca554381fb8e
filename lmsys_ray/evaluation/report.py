"""What an evaluation leaves behind: its figures as JSON, and the fitted blend as settings that `score.py` takes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from lmsys_ray import __version__
from lmsys_ray.config import Settings
from lmsys_ray.evaluation.diagram import draw_reliability
from lmsys_ray.evaluation.evaluate import EVERYTHING, NOTHING, Evaluation, Slice
from lmsys_ray.evaluation.fitting import Mix, rounded
from lmsys_ray.evaluation.position import MEASURES
from lmsys_ray.metrics import LEVEL, METRICS, RESAMPLES, SMALLEST, Estimate
from lmsys_ray.run import RunDirectory
from lmsys_ray.storage import AnyPath, make_folder, remove, write_bytes, written_whole

Json = dict[str, Any]

BLEND = "blend.yaml"
"""The settings that blend the run anew."""


def write_report(evaluation: Evaluation, settings: Settings, run: RunDirectory, folder: AnyPath) -> None:
    """Writes evaluation.json, reliability.png and blend.yaml into `folder`, each whole.

    Without a fitted blend there is no blend.yaml; one that an earlier evaluation left is removed.
    """
    make_folder(folder)
    write_bytes(
        folder / "evaluation.json", (json.dumps(as_json(evaluation), indent=2, ensure_ascii=False) + "\n").encode()
    )
    if evaluation.unfitted:
        remove(folder / BLEND)
    else:
        write_bytes(folder / BLEND, blend_settings(settings, evaluation.fits[EVERYTHING].mix, str(run.path)).encode())
    with written_whole(folder / "reliability.png") as aside:
        draw_reliability(evaluation, aside)


def as_json(evaluation: Evaluation) -> Json:
    """Returns an evaluation as it is written to evaluation.json; each figure is {value, low, high}."""
    in_use = evaluation.fits[NOTHING].estimate
    return {
        "lmsys_ray": __version__,
        "counts": {**asdict(evaluation.counts), "prompts": evaluation.prompts},
        "intervals": {"method": "percentile bootstrap over prompts", "level": LEVEL, "resamples": RESAMPLES},
        "overall": _all_metrics(evaluation.overall),
        "slices": {
            kind: {name: _slice(part) for name, part in slices.items()} for kind, slices in evaluation.slices.items()
        },
        "margins": [
            {"of": first, "over": second, **_figures(margin, METRICS)}
            for (first, second), margin in evaluation.margins.items()
        ],
        "fits": {
            fitted: {
                **asdict(fit.mix),
                "temperature_at_bound": fit.at_bound,
                "out_of_fold": _figures(fit.estimate, METRICS),
                "over_blend_in_use": _figures(fit.estimate - in_use, METRICS),
            }
            for fitted, fit in evaluation.fits.items()
        },
        "position_bias": {name: _figures(estimate, MEASURES) for name, estimate in evaluation.position.items()},
        "unfitted": evaluation.unfitted,
        "at_floor": {"probability": SMALLEST, "rows": evaluation.at_floor},
        "rejected": {"rows": evaluation.counts.rejected, "class_prior_log_loss": evaluation.rejected_log_loss},
        "with_rejected": {
            "rows": evaluation.counts.judged + evaluation.counts.rejected,
            "log_loss": evaluation.submission_log_loss,
        },
    }


def _all_metrics(estimates: dict[str, Estimate]) -> Json:
    return {name: _figures(estimate, METRICS) for name, estimate in estimates.items()}


def _slice(part: Slice) -> Json:
    return {"rows": part.rows, "prompts": part.prompts, "metrics": _all_metrics(part.estimates) or None}


def _figures(estimate: Estimate, names: Sequence[str]) -> Json:
    rows = zip(names, estimate.values.tolist(), *estimate.intervals().tolist(), strict=True)
    return {name: {"value": round(v, 6), "low": round(low, 6), "high": round(high, 6)} for name, v, low, high in rows}


def blend_settings(settings: Settings, mix: Mix, output: str) -> str:
    """Returns `settings` with the weights and temperature of `mix` as YAML, complete.

    `output` names the run directory to blend anew, wherever it was written first. A member that the mix does not know
    (it has weight 0 and was not scored) stays out of the blend.
    """
    values = settings.model_dump(mode="json")
    for name, member in values["members"].items():
        member["weight"] = rounded(mix.weights.get(name, 0.0))
    values |= {"output": output, "temperature": mix.temperature}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def verdict(evaluation: Evaluation, first: str, second: str) -> str:
    """Says in words whether the log loss of `first` is below that of `second`, by the interval of their difference."""
    low, high = evaluation.margins[first, second].intervals()[:, METRICS.index("log_loss")]
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no clear difference"
