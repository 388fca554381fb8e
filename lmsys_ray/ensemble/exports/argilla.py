"""Preferences as records of Argilla, for people to review: both conversations, what the blend suggests, labels."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.ensemble.exports.pairs import Pair, figure, messages
from lmsys_ray.ensemble.exports.trl import MESSAGES

QUESTION = "preference"
"""The name of the label question; its labels are `lmsys_ray.CLASSES`."""
AGENT = "lmsys_ray"
_TEXTS = ("model_a", "model_b", "language", "source")
_FIGURES = ("p_a", "p_b", "p_tie", "p_margin")


class Argilla:
    """Records of Argilla 2: chat fields `conversation_a` and `conversation_b`, in the order of the input."""

    needs_label = False

    def schema(self, carried: Sequence[str]) -> pa.Schema:
        """Returns the columns of all records."""
        metadata = [(name, pa.float64()) for name in _FIGURES]
        metadata += [(name, pa.string()) for name in _TEXTS if name in carried]
        suggestion = pa.struct([("value", pa.string()), ("score", pa.float64()), ("agent", pa.string())])
        response = pa.list_(pa.struct([("value", pa.string())]))
        return pa.schema(
            [
                ("id", pa.string()),
                ("fields", pa.struct([("conversation_a", MESSAGES), ("conversation_b", MESSAGES)])),
                ("metadata", pa.struct(metadata)),
                ("suggestions", pa.struct([(QUESTION, suggestion)])),
                ("responses", pa.struct([(QUESTION, response)])),
            ]
        )

    def record(self, pair: Pair) -> dict[str, Any] | str:
        """Returns the record of a pair."""
        a, b, tie = pair.probabilities
        score = figure(pair.probabilities[pair.better])
        figures = dict(zip(_FIGURES, map(figure, (a, b, tie, abs(a - b))), strict=True))
        return {
            "id": pair.id,
            "fields": {f"conversation_{side}": messages(pair.sides, getattr(pair.sides, side)) for side in ("a", "b")},
            "metadata": figures | {name: pair.carried[name] for name in _TEXTS if name in pair.carried},
            "suggestions": {QUESTION: {"value": CLASSES[pair.better], "score": score, "agent": AGENT}},
            "responses": {QUESTION: [] if pair.label is None else [{"value": pair.label}]},
        }
