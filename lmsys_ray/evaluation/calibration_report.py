"""Shows a calibration on a terminal, and writes it as settings for `score.py`."""

from collections.abc import Iterator
from typing import Any

import yaml
from rich.table import Table

from lmsys_ray.evaluation.calibration import BLENDS, METHODS, Calibrated
from lmsys_ray.evaluation.evaluate import PRIOR
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.rounding import rounded
from lmsys_ray.evaluation.tables import cells, in_words, new_table, terminal
from lmsys_ray.metrics import METRICS, Estimate
from lmsys_ray.scoring.settings import Settings

_LOG_LOSS = METRICS.index("log_loss")


def calibration_yaml(calibrated: Calibrated, settings: Settings) -> str:
    """Returns the chosen calibration as YAML: a layer of settings that goes above those of a run.

    It names no input, output or model, so that it serves other runs of the same members too. In a stacked blend, the
    weights only say which members take part.
    """
    chosen = calibrated.fits[calibrated.chosen]
    members: dict[str, dict[str, Any]] = {}
    for name in settings.members:
        if name not in chosen.blend.weights:
            continue
        stacked = chosen.blend.stacking is not None
        members[name] = {"weight": 1.0 if stacked else rounded(chosen.blend.weights[name])}
        if link := chosen.links.get(name):
            members[name] |= {"link": link.name, "scale": link.scale, "tie": link.tie}
    values: dict[str, Any] = {
        "blend": chosen.blend.method,
        "temperature": chosen.blend.temperature,
        "prior_weight": chosen.blend.prior_weight,
        **({"prior": list(settings.prior)} if chosen.blend.prior_weight else {}),
        "members": members,
    }
    if stacking := chosen.blend.stacking:
        pairs = {name: {"preference": p, "tie": tie} for name, (p, tie) in stacking.members.items()}
        values["stacking"] = {"tie": stacking.tie, "members": pairs}
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)
    loss = _log_loss(calibrated.after[BLENDS[calibrated.chosen]])
    return f"# Fitted by calibrate to {_rows(calibrated)}: log loss {loss} out of fold.\n{body}"


def show(calibrated: Calibrated, command: str) -> None:
    """Prints the table, what was chosen and why, what is doubtful, and the `command` that blends the run anew."""
    console = terminal()
    console.print(f"calibrated on {_rows(calibrated)}, labelled and scored")
    console.print(_table(calibrated))
    for line in (
        *_links(calibrated),
        *_choice(calibrated),
        *_doubts(calibrated),
        f"to blend the run with it: {command}",
    ):
        console.print(line, soft_wrap=True)


def _rows(calibrated: Calibrated) -> str:
    return f"{calibrated.rows:,} rows of {calibrated.prompts:,} prompts"


def _table(calibrated: Calibrated) -> Table:
    title = "log loss with 95 % intervals by resampling prompts; after: out of fold"
    table = new_table(title, ["", "before", "after", "after minus blend in use"])
    in_use = calibrated.before[BLENDS[calibrated.in_use]]
    members = [name for name in calibrated.before if name not in (PRIOR, *BLENDS.values())]
    for name in (PRIOR, *members, *BLENDS.values()):
        before, after = calibrated.before.get(name), calibrated.after.get(name)
        table.add_row(
            name + _marks(calibrated, name),
            _log_loss(before) if before else "",
            _log_loss(after) if after else "",
            _log_loss(after - in_use, "+") if after else "",
        )
    return table


def _marks(calibrated: Calibrated, name: str) -> str:
    marks = {"in use": calibrated.in_use, "chosen": calibrated.chosen}
    found = [mark for mark, method in marks.items() if name == BLENDS[method]]
    return f" ({', '.join(found)})" if found else ""


def _log_loss(estimate: Estimate, sign: str = "") -> str:
    return cells(estimate, sign)[_LOG_LOSS]


def _links(calibrated: Calibrated) -> Iterator[str]:
    """Yields for each member with two scores which link was fitted, and how the other one compares."""
    for member, choice in calibrated.links.items():
        margin = _log_loss(choice.margin, "+")
        if choice.chosen == choice.in_use:
            yield f"{member}: link {choice.in_use}, as it was; {choice.other} is not clearly better ({margin})"
        else:
            yield f"{member}: link {choice.chosen}, better than {choice.in_use} by {margin}"


def _choice(calibrated: Calibrated) -> Iterator[str]:
    """Yields which blend was chosen and why, and whether it is better than the one in use."""
    chosen = calibrated.chosen
    losses = {method: float(calibrated.after[BLENDS[method]].values[_LOG_LOSS]) for method in METHODS}
    best = min(METHODS, key=losses.__getitem__)
    simpler = METHODS[: METHODS.index(chosen)]
    reasons = []
    if simpler:
        nearest = min(simpler, key=losses.__getitem__)
        margin = calibrated.after[BLENDS[chosen]] - calibrated.after[BLENDS[nearest]]
        reasons.append(f"better than {nearest}, which is simpler, by {_log_loss(margin, '+')}")
    if best != chosen:
        margin = calibrated.after[BLENDS[best]] - calibrated.after[BLENDS[chosen]]
        reasons.append(f"simpler than {best}, which is not clearly better ({_log_loss(margin, '+')})")
    elif not simpler:
        reasons.append("the simplest, and the lowest log loss out of fold")
    yield f"chosen: {chosen}, {'; '.join(reasons)}"
    margin = calibrated.after[BLENDS[chosen]] - calibrated.before[BLENDS[calibrated.in_use]]
    yield f"out of fold, against the blend in use: {in_words(margin)}, {_log_loss(margin, '+')}"


def _doubts(calibrated: Calibrated) -> Iterator[str]:
    """Yields what a user should know of the fits."""
    chosen = calibrated.fits[calibrated.chosen]
    for name, clearly in calibrated.against_scores.items():
        if clearly:
            yield f"{name}: people prefer responses with lower scores, as if its head were reversed (setting sign)"
        else:
            yield f"{name}: its scores say nothing of these labels, so that its scale makes all responses nearly equal"
    if chosen.blend.temperature in TEMPERATURES:
        bounds = " to ".join(f"{bound:g}" for bound in TEMPERATURES)
        yield f"the temperature {chosen.blend.temperature:g} is a bound of the search, {bounds}"
