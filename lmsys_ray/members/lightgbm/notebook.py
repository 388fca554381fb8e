"""The features of the Kaggle notebook that this project generalises, on sparse matrices.

Its quirks are kept, since boosters were fitted on them: raw cells are counted, JSON syntax included, whatever their
form; the logarithm comes before the difference; patterns are regular expressions; the last two extras are of response B
only. So is NumPy's float32 logarithm, whose last bit depends on the CPU.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array, csr_matrix, hstack

from lmsys_ray.data.conversations import CELLS, undecoded
from lmsys_ray.members.lightgbm.turns import TurnMatrix, undivided
from lmsys_ray.members.lightgbm.vectorizer import Vectorizer

EXTRAS = 2 * (5 * len(CELLS) + 2)


class NotebookFeatures:
    """[A - B, |A - B|, extras], where A and B are the counts of words and characters in a response, as logarithms."""

    portable = False

    def __init__(self, words: Vectorizer, characters: Vectorizer) -> None:
        self._words = words
        self._characters = characters
        self._terms = words.columns + characters.columns
        self.columns = 2 * self._terms + EXTRAS
        self.names = [f"Column_{column}" for column in range(self.columns)]

    def only(self, used: np.ndarray) -> NotebookFeatures:
        """Returns features whose columns are empty where `used` bool [columns] is false."""
        needed = used[: self._terms] | used[self._terms : 2 * self._terms]
        words, characters = np.split(needed, [self._words.columns])
        return NotebookFeatures(self._words.only(words), self._characters.only(characters))

    def matrix(self, conversations: pa.Table) -> csr_matrix:
        """Returns float64 [rows, columns]; every value is exactly that of the notebook's dense matrix."""
        conversations = undecoded(conversations)
        a, b = (self._logarithms(conversations[cell].to_pylist()) for cell in ("response_a", "response_b"))
        difference = a - b
        blocks = [difference, abs(difference), csr_array(_extras(conversations))]
        return csr_matrix(hstack(blocks, format="csr", dtype=np.float64))

    def by_turn(self, conversations: pa.Table) -> TurnMatrix:
        """Returns the matrix as it is: the notebook counted raw cells."""
        return undivided(self.matrix(conversations))

    def mirrored(self, matrix: csr_matrix) -> None:
        """Returns None: the notebook scored one order."""
        return

    def _logarithms(self, texts: list[str]) -> csr_array:
        """Returns log(1 + count), float32 [texts, terms]."""
        counts = hstack([self._words.counts(texts), self._characters.counts(texts)], format="csr", dtype=np.float32)
        counts.data = np.log1p(counts.data)
        return counts


def _extras(conversations: pa.Table) -> np.ndarray:
    """Returns the square roots, then log(1 + x), of 17 counts; float64 [rows, 34]."""
    cells = [conversations[cell] for cell in CELLS]
    newlines = [pc.count_substring(cell, "\n") for cell in cells]
    counts = [
        *newlines,
        *(pc.count_substring(cell, "\n\n") for cell in cells),
        # The pattern "." is a regular expression: any character except a newline.
        *(pc.subtract(pc.utf8_length(cell), newline) for cell, newline in zip(cells, newlines, strict=True)),
        *(pc.count_substring(cell, " ") for cell in cells),
        *(pc.count_substring(cell, '","') for cell in cells),
        pc.utf8_length(cells[-1]),
    ]
    words = [len(text.split()) for text in cells[-1].to_pylist()]
    extras = np.stack([*(count.to_numpy() for count in counts), words], axis=1).astype(np.float64)
    return np.hstack([np.sqrt(extras), np.log1p(extras)])
