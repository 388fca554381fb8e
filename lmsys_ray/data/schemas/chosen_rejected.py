"""Schemas that name the better response `chosen` and the other `rejected`: TRL's and those of many data sets."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.data.schemas.row import TIE, A, Record, Row
from lmsys_ray.data.schemas.schema import PairsOfRanked, Schema
from lmsys_ray.data.schemas.values import (
    DIALOGUE,
    assistant_messages,
    dialogue_of,
    exchanges_of,
    messages_of,
    name_of,
    needed,
    number_of,
    parsed,
    present,
    text_of,
    user_messages,
)
from lmsys_ray.data.turns import SYSTEM, USER, BadCellError, Message

_PROMPTS = ("prompt", "question", "query", "input")
_CHOSEN = (("chosen",), ("rejected",))
_LABEL: dict[str, tuple[str, ...]] = {"label": ()}


def _trl(record: Record, _: PairsOfRanked) -> list[Row]:
    name = next((name for name in _PROMPTS if present(record.get(name))), None)
    prompt = None if name is None else _messages_or_text(record, name)
    if isinstance(prompt, str) and present(record.get("system")):
        prompt = [Message(SYSTEM, text_of(record, "system")), *user_messages(prompt)]
    return [_pair(prompt, _messages_or_text(record, "chosen"), _messages_or_text(record, "rejected"))]


def _messages_or_text(record: Record, column: str) -> list[Message] | str:
    messages = messages_of(record, column)
    return text_of(record, column) if messages is None else messages


def _pair(prompt: list[Message] | str | None, chosen: list[Message] | str, rejected: list[Message] | str) -> Row:
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadCellError("chosen and rejected are text and messages where both should be the same")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            prompt, chosen, rejected = _common_beginning(chosen, rejected)
        before = user_messages(prompt) if isinstance(prompt, str) else prompt
        return _row([*before, *assistant_messages(chosen)], [*before, *assistant_messages(rejected)])
    return _row(*(_whole(prompt, side) for side in (chosen, rejected)))  # type: ignore[arg-type]


def _whole(prompt: list[Message] | str | None, side: list[Message]) -> list[Message]:
    """Returns a conversation with its prompt, which the side may repeat."""
    before = [] if prompt is None else user_messages(prompt) if isinstance(prompt, str) else prompt
    return side if not before or any(message.role == USER for message in side) else [*before, *side]


def _row(chosen: Sequence[Message], rejected: Sequence[Message], label: int = A) -> Row:
    asked, better = exchanges_of(chosen)
    also_asked, worse = exchanges_of(rejected)
    if asked != also_asked:
        raise BadCellError("chosen and rejected have different turns of the user")
    return Row(asked, better, worse, label, dealt=True)


def _common_beginning(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Returns the words with which two texts begin alike, which are the prompt, and the rest of each."""
    end = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    while end and not chosen[end - 1].isspace():
        end -= 1
    return chosen[:end].rstrip(), chosen[end:], rejected[end:]


def _has_prompts(records: Sequence[Record]) -> bool:
    """Returns whether most of the first records have a prompt, by itself or as what both sides begin with."""
    found = [
        any(present(record.get(name)) for name in _PROMPTS)
        or not (isinstance(record.get("chosen"), str) and isinstance(record.get("rejected"), str))
        or _common_beginning(record["chosen"], record["rejected"])[0] != ""
        for record in records
    ]
    return 2 * sum(found) >= len(found)


TRL = Schema("trl", "TRL preferences", _CHOSEN, _trl, telling=(*_PROMPTS, "system"), fits=_has_prompts, carries=_LABEL)


def _ultrafeedback(record: Record, pairs: PairsOfRanked) -> list[Row]:
    [row] = _trl(record, pairs)
    better, worse = number_of(record, "score_chosen"), number_of(record, "score_rejected")
    tied = better is not None and better == worse
    return [Row(row.prompt, row.first, row.second, TIE if tied else A, dealt=True)]


ULTRAFEEDBACK = Schema(
    "ultrafeedback",
    "UltraFeedback binarized",
    (("prompt",), *_CHOSEN, ("score_chosen",), ("score_rejected",)),
    _ultrafeedback,
    carries=_LABEL,
)


def _hh_rlhf(record: Record, _: PairsOfRanked) -> list[Row]:
    return [_row(dialogue_of(record, "chosen"), dialogue_of(record, "rejected"))]


def _dialogues(records: Sequence[Record]) -> bool:
    texts = [record.get(column) for record in records for column in ("chosen", "rejected")]
    return bool(texts) and all(isinstance(text, str) and DIALOGUE.match(text) for text in texts)


HH_RLHF = Schema(
    "hh_rlhf",
    "hh-rlhf dialogues",
    _CHOSEN,
    _hh_rlhf,
    telling=("chosen", "rejected"),
    fits=_dialogues,
    carries=_LABEL,
)


def _rewardbench(record: Record, _: PairsOfRanked) -> list[Row]:
    prompt = _messages_or_text(record, "prompt")
    models = [parsed(record.get(name)) for name in ("chosen_model", "rejected_model")]
    better, worse = (_responses(record, column) for column in ("chosen", "rejected"))
    rows = []
    for i, chosen in enumerate(better):
        for j, rejected in enumerate(worse):
            row = _pair(prompt, chosen, rejected)
            names = tuple(_one_name(model, place) for model, place in zip(models, (i, j), strict=True))
            part = f":{i}-{j}" if len(better) * len(worse) > 1 else ""
            rows.append(Row(row.prompt, row.first, row.second, A, True, (names[0], names[1]), part))
    if not rows:
        raise BadCellError("chosen or rejected holds no response")
    return rows


def _responses(record: Record, column: str) -> list[list[Message] | str]:
    """Returns the responses in a column: one as text or messages, or as in RewardBench 2 a list of texts."""
    value = needed(record, column)
    value = parsed(value) if "num_correct" in record else value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    return [_messages_or_text(record, column)]


def _one_name(names: object, place: int) -> str | None:
    if isinstance(names, list):
        return str(names[place]) if place < len(names) else None
    return name_of({"name": names}, "name")


REWARDBENCH = Schema(
    "rewardbench",
    "RewardBench",
    (("prompt",), *_CHOSEN, ("subset", "chosen_model")),
    _rewardbench,
    telling=("rejected_model", "num_correct", "total_completions"),
    carries={**_LABEL, "model_a": ("chosen_model",), "model_b": ("rejected_model",), "source": ("subset",)},
    one_row=False,
)


def _llama_factory(record: Record, _: PairsOfRanked) -> list[Row]:
    if present(record.get("conversations")):
        prompt: list[Message] | str = _messages_or_text(record, "conversations")
    else:
        given = [text_of(record, name) for name in ("instruction", "input")]
        prompt = "\n".join(filter(None, given))
    return [_pair(prompt, *(_one_side(record, column) for column in ("chosen", "rejected")))]


def _one_side(record: Record, column: str) -> list[Message]:
    value = _messages_or_text(record, column)
    return assistant_messages(value) if isinstance(value, str) else value


LLAMA_FACTORY = Schema(
    "llama_factory",
    "LLaMA-Factory preferences",
    (("instruction", "conversations"), *_CHOSEN),
    _llama_factory,
    telling=("input", "system"),
    carries=_LABEL,
)
