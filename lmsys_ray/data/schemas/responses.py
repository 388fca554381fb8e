"""Schemas that name the responses one and two: the contest's, HelpSteer, PKU-SafeRLHF and AlpacaEval."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.data.schemas.row import TIE, A, B, Record, Row
from lmsys_ray.data.schemas.schema import MODELS, PairsOfRanked, Schema
from lmsys_ray.data.schemas.values import (
    ONE_HOT,
    continued,
    name_of,
    needed,
    number_of,
    one_hot_class,
    parsed,
    present,
    prompt_of,
    text_of,
    winner,
)
from lmsys_ray.data.turns import BadCellError, check_roles, typed_turns


def one_hot(record: Record) -> tuple[int | None, str | None]:
    """Returns the class whose column of `ONE_HOT` holds 1, and a warning where the columns are not one-hot."""
    values = [record.get(name) for name in ONE_HOT]
    if not any(map(present, values)):
        return None, None
    found = one_hot_class(values)
    if found is not None:
        return found, None
    shown = ", ".join(str(value)[:20] if present(value) else "nothing" for value in values)
    return None, f"{', '.join(ONE_HOT)} are {shown}, of which none is the one that holds 1: the row has no label"


def _contest(record: Record, _: PairsOfRanked) -> list[Row]:
    if any(name in record for name in ONE_HOT):
        label, warning = one_hot(record)
    else:
        label, warning = winner(record, "winner")
    prompt, a, b = (_contest_cell(record, name) for name in ("prompt", "response_a", "response_b"))
    models = (name_of(record, "model_a"), name_of(record, "model_b"))
    return [Row(prompt, a, b, label, models=models, warning=warning)]


def _contest_cell(record: Record, column: str) -> str | Sequence[str | None]:
    value = needed(record, column)
    if isinstance(value, str | bytes):
        return text_of(record, column)
    if not isinstance(value, list | dict):
        raise BadCellError(f"{column} is neither text nor a list of turns")
    try:
        turns = typed_turns(value)
        check_roles(column, turns)
    except BadCellError as error:
        raise BadCellError(f"{column} {error}") from None
    return turns.texts


_CONTEST_COLUMNS = (("prompt",), ("response_a",), ("response_b",))

CONTEST = Schema(
    "contest",
    "the contest's pairs",
    _CONTEST_COLUMNS,
    _contest,
    telling=ONE_HOT,
    carries={"label": (*ONE_HOT, "winner"), **MODELS},
)

WSDM = Schema(
    "wsdm",
    "pairs of the WSDM contest",
    (*_CONTEST_COLUMNS, ("winner",)),
    _contest,
    carries={"label": ("winner",), **MODELS},
)


def _helpsteer(record: Record, _: PairsOfRanked) -> list[Row]:
    column = "context" if "context" in record else "prompt"
    prompt, answers = prompt_of(record, column)
    responses = []
    for names in (("response_1", "response1"), ("response_2", "response2")):
        name = next((name for name in names if name in record), names[0])
        needed(record, name)
        responses.append(continued(answers, text_of(record, name)))
    names = ("preference_strength", "overall_preference")
    strength = next((found for name in names if (found := number_of(record, name)) is not None), None)
    label = None if strength is None else A if strength < 0 else B if strength > 0 else TIE
    return [Row(prompt, responses[0], responses[1], label)]


HELPSTEER = Schema(
    "helpsteer",
    "HelpSteer preferences",
    (("prompt", "context"), ("response_1", "response1"), ("response_2", "response2")),
    _helpsteer,
    telling=("preference_strength", "overall_preference"),
    carries={"label": ("preference_strength", "overall_preference"), "source": ("domain",)},
)


def _safe_rlhf(record: Record, _: PairsOfRanked) -> list[Row]:
    chosen = number_of(record, "better_response_id")
    label = {0.0: A, 1.0: B}.get(-1.0 if chosen is None else chosen)
    responses = [[text_of(record, name)] for name in ("response_0", "response_1") if needed(record, name) is not None]
    models = (name_of(record, "response_0_source"), name_of(record, "response_1_source"))
    return [Row([text_of(record, "prompt")], responses[0], responses[1], label, models=models)]


SAFE_RLHF = Schema(
    "safe_rlhf",
    "PKU-SafeRLHF",
    (("prompt",), ("response_0",), ("response_1",)),
    _safe_rlhf,
    telling=("better_response_id", "safer_response_id"),
    advice="labels are better_response_id; --set columns.better_response_id=safer_response_id takes those of safety",
    carries={
        "label": ("better_response_id",),
        "model_a": ("response_0_source",),
        "model_b": ("response_1_source",),
        "source": ("prompt_source",),
    },
)


def _alpaca_eval(record: Record, _: PairsOfRanked) -> list[Row]:
    preference = number_of(record, "preference")
    label = None
    if preference is not None and (preference == 0 or 1 <= preference <= 2):
        label = TIE if preference in (0, 1.5) else A if preference < 1.5 else B
    for name in ("output_1", "output_2"):
        needed(record, name)
    models = (name_of(record, "generator_1"), name_of(record, "generator_2"))
    prompt, first, second = ([text_of(record, name)] for name in ("instruction", "output_1", "output_2"))
    return [Row(prompt, first, second, label, models=models)]


ALPACA_EVAL = Schema(
    "alpaca_eval",
    "AlpacaEval's or Arena-Hard's outputs",
    (("instruction",), ("output_1",), ("output_2",)),
    _alpaca_eval,
    telling=("generator_1", "generator_2", "preference", "dataset"),
    carries={
        "label": ("preference",),
        "model_a": ("generator_1",),
        "model_b": ("generator_2",),
        "source": ("dataset",),
    },
)


def _ranked(record: Record, pairs: PairsOfRanked) -> list[Row]:
    answers = _ranked_answers(record)
    if len(answers) < 2:
        raise BadCellError(f"has {len(answers)} responses where two or more are expected")
    order = sorted(range(len(answers)), key=lambda place: (answers[place][0] is None, answers[place][0] or 0, place))
    chosen = {
        "all": [(i, j) for i in range(len(order)) for j in range(i + 1, len(order))],
        "adjacent": [(i, i + 1) for i in range(len(order) - 1)],
        "best_worst": [(0, len(order) - 1)],
    }[pairs]
    prompt, before = prompt_of(record, "prompt")
    rows = []
    for i, j in chosen:
        (rank, text, model), (worse, other, rival) = answers[order[i]], answers[order[j]]
        label = None if rank is None or worse is None else TIE if rank == worse else A
        sides = (continued(before, text), continued(before, other))
        rows.append(Row(prompt, *sides, label, True, (model, rival), f":{order[i]}-{order[j]}"))
    return rows


def _ranked_answers(record: Record) -> list[tuple[float | None, str, str | None]]:
    """Returns the rank (1 is best), text and model of each response."""
    column = next(name for name in ("answers", "responses") if record.get(name) is not None or name == "responses")
    values = parsed(needed(record, column))
    if not isinstance(values, list):
        raise BadCellError(f"{column} has {type(values).__name__} where a list of responses is expected")
    ranks = parsed(record.get("ranks", record.get("rank")))
    found = []
    for place, value in enumerate(values):
        if isinstance(value, dict):
            name = next((name for name in ("answer", "response", "text", "content") if name in value), "answer")
            found.append((number_of(value, "rank"), text_of(value, name), name_of(value, "model")))
        elif isinstance(value, str):
            rank = number_of({"rank": ranks[place]}, "rank") if _has(ranks, place) else None
            found.append((rank, value, None))
        else:
            raise BadCellError(f"{column} has {type(value).__name__} as response {place + 1} where text is expected")
    return found


def _has(ranks: object, place: int) -> bool:
    return isinstance(ranks, list) and place < len(ranks)


def _lists(records: Sequence[Record]) -> bool:
    """Returns whether the first records have lists of responses."""
    values = [record.get("answers", record.get("responses")) for record in records]
    return all(isinstance(parsed(value), list) for value in values if value is not None)


RANKED = Schema(
    "ranked",
    "Nectar's or other lists of ranked responses",
    (("prompt",), ("answers", "responses")),
    _ranked,
    telling=("ranks", "rank"),
    fits=_lists,
    carries={"label": (), "model_a": (), "model_b": ()},
    one_row=False,
)
