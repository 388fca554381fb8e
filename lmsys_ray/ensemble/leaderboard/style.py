"""How much responses differ in length and markdown, as Chatbot Arena's style control counts it.

Li, Angelopoulos and Chiang 2024, https://lmsys.org/blog/2024-08-28-style-control
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CellForm, decode_cell
from lmsys_ray.ensemble.leaderboard.settings import StyleName

FEATURES: dict[StyleName, tuple[str, ...]] = {
    "none": (),
    "length": ("length",),
    "markdown": ("headers", "bold", "lists"),
    "both": ("length", "headers", "bold", "lists"),
}
"""What is counted of each response."""

_CODE = r"```[^`]*```"
# How a line begins, each with the line breaks around it. Patterns with ^ cannot be counted in a whole text: after a
# match, Arrow treats the rest as a new text.
_HEADER = r"\n#{1,6}\s"
_ITEM = r"\n[ \t\r\f]*(?:[-*+]|\d+\.)\s"
# Two patterns are several times faster than one: each begins with a text that can be searched.
_BOLD = (r"\*\*[^*\n]+\*\*", r"__[^_\n]+__")


def style_differences(style: StyleName, a: pa.ChunkedArray, b: pa.ChunkedArray, form: CellForm) -> np.ndarray:
    """Returns (a - b) / (a + b + 1) of each of `FEATURES`, float64 [rows, features], of raw cells of responses.

    The 1 keeps responses without any from being divided by 0, as in the Arena's code.
    """
    of_a, of_b = counts(style, a, form), counts(style, b, form)
    return (of_a - of_b) / (of_a + of_b + 1)


def counts(style: StyleName, cells: pa.ChunkedArray, form: CellForm) -> np.ndarray:
    """Returns how many characters, headers, bold texts and list items a response has, float64 [rows, features].

    Its turns are joined by line breaks; of markdown, what is in blocks of code does not count. A missing cell has none.
    """
    texts = pa.array(
        ["\n".join(decode_cell(cell, form)) if cell else "" for cell in cells.to_pylist()], pa.large_string()
    )
    found = {"length": pc.utf8_length(texts)} if "length" in FEATURES[style] else {}
    if "headers" in FEATURES[style]:
        found |= _markdown(texts)
    return np.stack([found[name].to_numpy().astype(np.float64) for name in FEATURES[style]], axis=1)


def _markdown(texts: pa.Array) -> dict[str, pa.Array]:
    prose = pc.replace_substring_regex(texts, _CODE, "`")  # what follows code does not begin a line
    # Each line gets line breaks of its own, since counted matches do not overlap.
    before, between = (pa.scalar(text, pa.large_string()) for text in ("\n", ""))
    lines = pc.binary_join_element_wise(before, pc.replace_substring(prose, "\n", "\n\n"), between)
    stars, underscores = (pc.count_substring_regex(prose, pattern) for pattern in _BOLD)
    return {
        "headers": pc.count_substring_regex(lines, _HEADER),
        "bold": pc.add(stars, underscores),
        "lists": pc.count_substring_regex(lines, _ITEM),
    }
