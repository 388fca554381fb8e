"""Preferences for TRL and trainers that read the same columns: text of one exchange, or chat messages."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray.data.turns import ASSISTANT
from lmsys_ray.ensemble.exports.pairs import Pair, as_messages, messages

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SEVERAL = "several turns, which only trl_conversational holds"


def _schema(text: pa.DataType, carried: Sequence[str]) -> pa.Schema:
    fields = [("id", pa.string()), *((name, text) for name in ("prompt", "chosen", "rejected"))]
    fields += [(name, pa.float64()) for name in ("p_margin", "p_chosen", "p_tie")]
    fields += [("agreement", pa.bool_())] if "label" in carried else []
    if "model_a" in carried and "model_b" in carried:
        fields += [("chosen_model", pa.string()), ("rejected_model", pa.string())]
    return pa.schema(fields)


class Trl:
    """TRL's standard form with an explicit prompt; conversations of several turns have none in it."""

    needs_label = False

    def schema(self, carried: Sequence[str]) -> pa.Schema:
        """Returns the columns of all records."""
        return _schema(pa.string(), carried)

    def record(self, pair: Pair) -> dict[str, Any] | str:
        """Returns the record of a pair, or why there is none."""
        if pair.sides.shared or len(pair.chosen) > 1 or len(pair.rejected) > 1:
            return _SEVERAL
        texts = {"prompt": pair.sides.asked, "chosen": pair.chosen[0], "rejected": pair.rejected[0]}
        return {"id": pair.id, **texts, **pair.figures, **pair.extras()}


class TrlConversational:
    """TRL's conversational form; the prompt is all that both sides share, up to a turn of the user.

    It is what TRL's `extract_prompt` finds in two whole conversations. Where earlier answers are the same, `chosen` and
    `rejected` are one answer each; otherwise they begin with the first answer that differs, and go on to the last.
    """

    needs_label = False

    def schema(self, carried: Sequence[str]) -> pa.Schema:
        """Returns the columns of all records."""
        return _schema(MESSAGES, carried)

    def record(self, pair: Pair) -> dict[str, Any] | str:
        """Returns the record of a pair."""
        sides = {"chosen": as_messages(pair.chosen, ASSISTANT), "rejected": as_messages(pair.rejected, ASSISTANT)}
        return {"id": pair.id, "prompt": messages(pair.sides, None), **sides, **pair.figures, **pair.extras()}
