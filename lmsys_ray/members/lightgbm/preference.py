"""Features meant to carry over from one kind of conversations to another: statistics of the texts, no vocabulary.

Every column either changes its sign when A and B change places (a difference) or stays (a mean, the prompt, what the
two have in common). So the matrix of the swapped conversations is had by changing signs, and averaging over both
orders, which frees the scores of any preference for a side, costs one more prediction and no more features.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lmsys_ray.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.members.base import CONVERSATIONS
from lmsys_ray.members.lightgbm.portable import on_grid
from lmsys_ray.members.lightgbm.text_statistics import Numbering, Statistics, Words, shared_with, similarity, statistics

DIFFERENCE = "difference"
"""What the names of columns that change their sign begin with."""

PROMPT = "prompt"
"""What the names of columns that tell of the prompt alone begin with."""


_SCRIPTS = ("cyrillic_letters", "east_asian_letters")


class PreferenceFeatures:
    """Differences between the two responses, their means, the prompt, and what the two have in common."""

    portable = True

    def __init__(self, cells: CellForm) -> None:
        """`cells` says what the raw cells hold (see `lmsys_ray.conversations.decode_cell`)."""
        self._cells = cells
        self.names = list(named_features(CONVERSATIONS.empty_table(), cells))
        self.columns = len(self.names)
        self._signs = np.array([-1.0 if name.startswith(DIFFERENCE) else 1.0 for name in self.names])

    def only(self, used: np.ndarray) -> PreferenceFeatures:
        """Returns the same features: all are computed, whatever is `used`."""
        return self

    def matrix(self, conversations: pa.Table) -> np.ndarray:
        """Returns float64 [rows, columns], dense; raises `BadCellError` for a cell that does not decode."""
        return on_grid(np.stack(list(named_features(conversations, self._cells).values()), axis=1))

    def mirrored(self, matrix: np.ndarray) -> np.ndarray:
        """Returns the matrix of the same conversations with A and B swapped."""
        return matrix * self._signs


def named_features(conversations: pa.Table, cells: CellForm) -> Statistics:
    """Returns the features of each row by name, float64 [rows]; the names begin with how they stand to A and B."""
    texts = {cell: _texts(conversations[cell], cells) for cell in CELLS}
    numbering = Numbering()
    words = {cell: Words(column, numbering) for cell, column in texts.items()}
    prompt, a, b = (statistics(texts[cell], words[cell]) for cell in texts)
    for response, cell in ((a, "response_a"), (b, "response_b")):
        response |= shared_with(words[cell], words["prompt"])
        response["script_change"] = np.sum([abs(response[name] - prompt[name]) for name in _SCRIPTS], axis=0)
    pair = similarity(words["response_a"], words["response_b"])
    pair["same_text"] = np.array([x == y for x, y in zip(texts["response_a"], texts["response_b"], strict=True)], float)
    pair["shorter"] = np.minimum(a["words"], b["words"])
    pair["longer"] = np.maximum(a["words"], b["words"])
    pair["length_gap"] = abs(a["characters"] - b["characters"])
    return {
        **{f"{DIFFERENCE}_{name}": a[name] - b[name] for name in a},
        **{f"mean_{name}": (a[name] + b[name]) / 2 for name in a},
        **{f"{PROMPT}_{name}": value for name, value in prompt.items()},
        **{f"pair_{name}": value for name, value in pair.items()},
    }


def _texts(column: pa.ChunkedArray, cells: CellForm) -> list[str]:
    return ["\n".join(decode_cell(cell, cells)) for cell in column.to_pylist()]
