"""Writes the results of an evaluation: figures as JSON, and the fitted blend as settings for `score.py`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from lmsys_ray import __version__
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.errors import UsageError
from lmsys_ray.evaluation.evaluate import EVERYTHING, NOTHING, Evaluation, Slice
from lmsys_ray.evaluation.position_bias import MEASURES
from lmsys_ray.evaluation.reliability_diagram import draw_reliability
from lmsys_ray.evaluation.rounding import rounded
from lmsys_ray.evaluation.verdict import verdict
from lmsys_ray.metrics import LEVEL, METRICS, RESAMPLES, SMALLEST, Estimate
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import AnyPath, atomic_file, exists, make_folder, read_bytes, remove, write_bytes

Json = dict[str, Any]

EVALUATION = "evaluation.json"

BLEND = "blend.yaml"
"""The file of settings that blend the run anew."""


def write_report(
    evaluation: Evaluation, settings: Settings, run: RunDirectory, folder: AnyPath, judged_by: str = ""
) -> None:
    """Writes evaluation.json, reliability.png and blend.yaml into `folder`, each atomically.

    Without a fitted blend there is no blend.yaml; one from an earlier evaluation is removed. `judged_by` is the digest
    of the labels, for `check_replaceable`.
    """
    make_folder(folder)
    write_bytes(
        folder / EVALUATION,
        (json.dumps({**as_json(evaluation), "labels": judged_by}, indent=2, ensure_ascii=False) + "\n").encode(),
    )
    if evaluation.unfitted:
        remove(folder / BLEND)
    else:
        write_bytes(folder / BLEND, blend_settings(settings, evaluation.fits[EVERYTHING].blend, str(run.path)).encode())
    with atomic_file(folder / "reliability.png") as aside:
        draw_reliability(evaluation, aside)


def check_replaceable(folder: AnyPath, judged_by: str) -> None:
    """Raises `UsageError` where `folder` holds an evaluation against other labels, which would be lost."""
    file = folder / EVALUATION
    if not exists(file):
        return
    try:
        before = json.loads(read_bytes(file))
    except ValueError:
        before = {}
    if isinstance(before, dict) and before.get("labels", judged_by) != judged_by:
        raise UsageError(
            f"--output: {folder} holds an evaluation against other labels; name another folder, or remove that one"
        )


def as_json(evaluation: Evaluation) -> Json:
    """Returns an evaluation as it is written to evaluation.json; each figure is {value, low, high}."""
    in_use = evaluation.fits[NOTHING].estimate
    return {
        "lmsys_ray": __version__,
        "verdict": verdict(evaluation),
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
                **_parameters(fit.blend),
                "settled": fit.settled,
                "temperature_at_bound": fit.at_bound,
                "out_of_fold": _figures(fit.estimate, METRICS),
                "over_blend_in_use": _figures(fit.estimate - in_use, METRICS),
            }
            for fitted, fit in evaluation.fits.items()
        },
        "position_bias": {name: _figures(estimate, MEASURES) for name, estimate in evaluation.position.items()},
        "sureness": _figures(evaluation.sureness, ["highest_probability_minus_hit"]),
        "trained_on": {name: {"rows": rows, "of": of} for name, (rows, of) in evaluation.trained_on.items()},
        "unfitted": evaluation.unfitted,
        "at_floor": {"probability": SMALLEST, "rows": evaluation.at_floor},
        "rejected": {"rows": evaluation.counts.rejected, "class_prior_log_loss": evaluation.rejected_log_loss},
        "with_rejected": {
            "rows": evaluation.counts.judged + evaluation.counts.rejected,
            "log_loss": evaluation.submission_log_loss,
        },
    }


def _parameters(blend: Blend) -> Json:
    """Returns what settings say of a blend, the prior itself left out."""
    values: Json = {"blend": blend.method, "weights": dict(blend.weights), "temperature": blend.temperature}
    if blend.stacking:
        pairs = blend.stacking.members.items()
        members = {name: {"preference": preference, "tie": tie} for name, (preference, tie) in pairs}
        values = {**values, "weights": None, "stacking": {"tie": blend.stacking.tie, "members": members}}
    return {**values, "prior_weight": blend.prior_weight}


def _all_metrics(estimates: dict[str, Estimate]) -> Json:
    return {name: _figures(estimate, METRICS) for name, estimate in estimates.items()}


def _slice(part: Slice) -> Json:
    return {"rows": part.rows, "prompts": part.prompts, "metrics": _all_metrics(part.estimates) or None}


def _figures(estimate: Estimate, names: Sequence[str]) -> Json:
    rows = zip(names, estimate.values.tolist(), *estimate.intervals().tolist(), strict=True)
    return {name: {"value": round(v, 6), "low": round(low, 6), "high": round(high, 6)} for name, v, low, high in rows}


def blend_settings(settings: Settings, blend: Blend, output: str) -> str:
    """Returns `settings` with the weights and temperature of `blend`, a linear one, as YAML, complete.

    `output` is the run directory to blend anew, which may have moved. A member that is not in the blend (it has weight
    0 and was not scored) stays out of it.
    """
    values = settings.model_dump(mode="json")
    for name, member in values["members"].items():
        member["weight"] = rounded(blend.weights.get(name, 0.0))
    values |= {"output": output, "temperature": blend.temperature, "blend": blend.method, "prior_weight": 0.0}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
