"""An evaluation in a few sentences, which say no more than its intervals bear."""

from collections.abc import Iterator

from lmsys_ray.evaluation.evaluate import FITTED, IN_USE, PRIOR, Evaluation
from lmsys_ray.evaluation.tables import in_words
from lmsys_ray.evaluation.trained_rows import warnings
from lmsys_ray.metrics import METRICS, Estimate

_LOG_LOSS = METRICS.index("log_loss")


def verdict(evaluation: Evaluation) -> list[str]:
    """Returns what a reader should know first: gain over the class shares and the best member, calibration, fit."""
    return [
        *warnings(evaluation.trained_on),
        _against(evaluation.margins[IN_USE, PRIOR], "the blend", "the class shares"),
        *_against_best_member(evaluation),
        *_calibration(evaluation),
        *_fitted(evaluation),
    ]


def gains(evaluation: Evaluation) -> bool:
    """Returns whether the fitted blend is clearly better than the one in use, on rows that nothing was fitted on."""
    return (
        not evaluation.unfitted
        and not evaluation.trained_on
        and in_words(evaluation.margins[FITTED, IN_USE]) == "better"
    )


def _against(margin: Estimate, subject: str, other: str) -> str:
    by = _by(margin, _LOG_LOSS)
    match in_words(margin):
        case "better":
            return f"{subject} is better than {other} by {by} log loss"
        case "worse":
            return f"{subject} is worse than {other} by {by} log loss"
    return f"{subject} is not clearly better or worse than {other} (difference {by} log loss)"


def _against_best_member(evaluation: Evaluation) -> Iterator[str]:
    members = [name for first, name in evaluation.margins if first == IN_USE and name != PRIOR]
    if len(members) > 1:
        best = min(members, key=lambda name: evaluation.overall[name].values[_LOG_LOSS])
        yield _against(evaluation.margins[IN_USE, best], "the blend", f"{best} alone, its best member")


def _calibration(evaluation: Evaluation) -> Iterator[str]:
    parts = {"all rows": evaluation.sureness}
    for kind, slices in evaluation.slices.items():
        parts |= {f"{kind} {name}": part.sureness for name, part in slices.items() if part.sureness}
    found: dict[str, list[str]] = {"too sure": [], "not sure enough": []}
    for name, sureness in parts.items():
        low, high = sureness.intervals()[:, 0]
        if low > 0 or high < 0:
            found["too sure" if low > 0 else "not sure enough"].append(f"{name} ({_by(sureness, 0)})")
    for word, places in found.items():
        if places:
            yield f"the blend's probabilities are {word} on {', '.join(places)}"
    if not any(found.values()):
        yield "the blend is as sure as it is right, as far as these rows tell"


def _fitted(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.unfitted:
        margin = evaluation.margins[FITTED, IN_USE]
        if in_words(margin) == "better":
            yield f"weights and temperature fitted to these labels gain {_by(margin, _LOG_LOSS)} log loss out of fold"
        else:
            yield f"fitted weights and temperature gain nothing clear ({_signed(margin)} log loss out of fold)"


def _by(estimate: Estimate, place: int) -> str:
    low, high = estimate.intervals()[:, place]
    return f"{abs(estimate.values[place]):.3f} ± {(high - low) / 2:.3f}"


def _signed(margin: Estimate) -> str:
    low, high = margin.intervals()[:, _LOG_LOSS]
    return f"{margin.values[_LOG_LOSS]:+.4f} ± {(high - low) / 2:.4f}"
