"""Labelled rows in the form of RewardBench's outputs, which say whether the blend prefers what people chose."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray.ensemble.exports.pairs import Pair, figure, messages, transcript


class RewardBench:
    """Records of RewardBench's `_outputs.jsonl`: `chosen` is what people chose, and scores are probabilities.

    Texts are transcripts (`lmsys_ray.ensemble.exports.pairs.transcript`), the prompt up to where the sides part.
    """

    needs_label = True

    def schema(self, carried: Sequence[str]) -> pa.Schema:
        """Returns the columns of all records."""
        return pa.schema(
            [
                ("prompt", pa.string()),
                ("results", pa.int64()),
                ("scores_chosen", pa.float64()),
                ("scores_rejected", pa.float64()),
                ("text_chosen", pa.string()),
                ("text_rejected", pa.string()),
                ("id", pa.string()),
            ]
        )

    def record(self, pair: Pair) -> dict[str, Any] | str:
        """Returns the record of a pair."""
        chosen, rejected = pair.probabilities[pair.better], pair.probabilities[1 - pair.better]
        return {
            "prompt": transcript(messages(pair.sides, None)),
            "results": int(chosen > rejected),
            "scores_chosen": figure(chosen),
            "scores_rejected": figure(rejected),
            "text_chosen": transcript(messages(pair.sides, pair.chosen)),
            "text_rejected": transcript(messages(pair.sides, pair.rejected)),
            "id": pair.id,
        }
