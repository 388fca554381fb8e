"""Schemas with two whole conversations: those of the Arena, and MT-bench's human judgments."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.data.schemas.row import Record, Row
from lmsys_ray.data.schemas.schema import MODELS, PairsOfRanked, Schema
from lmsys_ray.data.schemas.values import alternating_exchanges, exchanges_of, messages_of, name_of, number_of, winner
from lmsys_ray.data.turns import BadCellError

_COLUMNS = ("conversation_a", "conversation_b")


def _arena(record: Record, _: PairsOfRanked) -> list[Row]:
    return [_row(record, None)]


def _mt_bench(record: Record, _: PairsOfRanked) -> list[Row]:
    """A judgment of the first turn was made before the second."""
    return [_row(record, 1 if number_of(record, "turn") == 1 else None)]


def _row(record: Record, turns: int | None) -> Row:
    sides = []
    for column in _COLUMNS:
        asked, answers = alternating_exchanges(record.get(column)) or _exchanges(record, column)
        sides.append((asked[:turns], answers[:turns]))
    (asked, first), (also_asked, second) = sides
    if asked != also_asked:
        raise BadCellError("conversation_a and conversation_b have different turns of the user")
    label, warning = winner(record, "winner")
    models = (name_of(record, "model_a"), name_of(record, "model_b"))
    return Row(asked, first, second, label, models=models, warning=warning)


def _exchanges(record: Record, column: str) -> tuple[list[str], list[str | None]]:
    messages = messages_of(record, column)
    if messages is None:
        raise BadCellError(f"{column} is text where a list of messages is expected")
    return exchanges_of(messages)


ARENA = Schema(
    "arena",
    "Chatbot Arena conversations",
    (("conversation_a",), ("conversation_b",)),
    _arena,
    telling=("winner", "model_a", "model_b", "tstamp", "anony", "conv_metadata", "full_conversation"),
    ids=("id", "question_id"),
    carries={"label": ("winner",), **MODELS},
)


def _judgments(records: Sequence[Record]) -> bool:
    """Returns whether questions have numbers, as the 80 of MT-bench; those of the Arena have long ids."""
    return all(str(record.get("question_id")).isdigit() for record in records)


def _judgment_id(record: Record) -> str | None:
    names = ("question_id", "model_a", "model_b", "judge", "turn")
    parts = [name_of(record, name) for name in names]
    return None if parts[0] is None else ":".join(part for part in parts if part is not None)


MT_BENCH = Schema(
    "mt_bench",
    "MT-bench human judgments",
    (("question_id",), ("judge",), ("conversation_a",), ("conversation_b",), ("turn",)),
    _mt_bench,
    telling=("winner", "model_a", "model_b"),
    fits=_judgments,
    identity=_judgment_id,
    ids=("id", "question_id"),
    carries={"label": ("winner",), **MODELS},
)
