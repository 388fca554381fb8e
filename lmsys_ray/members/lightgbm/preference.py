"""Features that should generalise across kinds of conversations: statistics of the texts, without a vocabulary.

Every column either changes its sign when A and B are swapped (a difference) or stays the same (a mean, the prompt, what
the two have in common). So the matrix of swapped conversations is made by changing signs, and averaging over both
orders, which removes position bias, costs one more prediction but no more features.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.members.lightgbm.portable import on_grid
from lmsys_ray.members.lightgbm.text_statistics import Numbering, Statistics, Words, shared_with, similarity, statistics
from lmsys_ray.members.lightgbm.turns import TurnMatrix
from lmsys_ray.members.protocol import CONVERSATIONS

Texts = dict[str, list[str]]
"""The texts of each of `CELLS`, one a row."""

DIFFERENCE = "difference"
"""The prefix of the names of columns that change their sign."""

PROMPT = "prompt"
"""The prefix of the names of columns about the prompt only."""


_SCRIPTS = ("cyrillic_letters", "east_asian_letters")


class PreferenceFeatures:
    """Differences between the two responses, their means, the prompt, and what the two have in common."""

    portable = True

    def __init__(self, cells: CellForm) -> None:
        """Takes the form of the raw cells (see `lmsys_ray.data.conversations.decode_cell`)."""
        self._cells = cells
        self.names = list(named_features(CONVERSATIONS.empty_table(), cells))
        self.columns = len(self.names)
        self.differences = [name for name in self.names if name.startswith(DIFFERENCE)]
        self._changes = np.array([name.startswith(DIFFERENCE) for name in self.names])
        self._signs = np.where(self._changes, -1.0, 1.0)

    def only(self, used: np.ndarray) -> PreferenceFeatures:
        """Returns the same features: all are computed, whichever are `used`."""
        return self

    def matrix(self, conversations: pa.Table) -> np.ndarray:
        """Returns float64 [rows, columns], dense; raises `BadCellError` for a cell that does not decode."""
        return _matrix(_joined(_decoded(conversations, self._cells)))

    def by_turn(self, conversations: pa.Table) -> TurnMatrix:
        """Returns the features of each turn by itself; raises `BadCellError` for a cell that does not decode.

        Where the cells of a conversation do not have the same number of turns, all are taken as one.
        """
        decoded = _decoded(conversations, self._cells)
        counts = np.array([[len(turns) for turns in column] for column in decoded.values()], np.int64)
        turns = np.where((counts == counts[0]).all(axis=0), np.maximum(counts[0], 1), 1)
        apart = {
            cell: [text for texts, count in zip(column, turns, strict=True) for text in _apart(texts, count)]
            for cell, column in decoded.items()
        }
        return TurnMatrix(_matrix(apart), np.repeat(np.arange(len(turns)), turns), np.any(counts > 1, axis=0))

    def only_differences(self, matrix: np.ndarray) -> np.ndarray:
        """Returns the columns that change their sign, those of `differences`."""
        return matrix[:, self._changes]

    def mirrored(self, matrix: np.ndarray) -> np.ndarray:
        """Returns the matrix of the same conversations with A and B swapped."""
        return matrix * self._signs


def named_features(conversations: pa.Table, cells: CellForm) -> Statistics:
    """Returns the features of each row by name, float64 [rows]; the prefix says how they depend on A and B."""
    return _named(_joined(_decoded(conversations, cells)))


def _named(texts: Texts) -> Statistics:
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


def _matrix(texts: Texts) -> np.ndarray:
    return on_grid(np.stack(list(_named(texts).values()), axis=1))


def _decoded(conversations: pa.Table, cells: CellForm) -> dict[str, list[list[str]]]:
    return {cell: [decode_cell(text, cells) for text in conversations[cell].to_pylist()] for cell in CELLS}


def _joined(decoded: dict[str, list[list[str]]]) -> Texts:
    return {cell: ["\n".join(turns) for turns in column] for cell, column in decoded.items()}


def _apart(turns: list[str], count: int) -> list[str]:
    return turns if len(turns) == count else ["\n".join(turns)]
