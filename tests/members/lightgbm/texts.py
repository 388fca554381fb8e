"""Texts for the tests of the LightGBM member: everyday ones and those that break things."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from lmsys_ray.members.protocol import CONVERSATIONS

_SENTENCES = (
    "The kettle boils at noon, and nobody minds the tea.",
    "I cannot book a train for you, but here is how you could do it yourself.",
    "def area(width, height):\n    return width * height\n",
    "1. Wash the rice.\n2. Let it soak for 20 minutes.\n\n3. Cook it **gently**.",
    "Наш поезд отходит в семь утра, не опаздывай!",
    "从这里走到湖边大约需要一个小时。",
    "ΟΔΥΣΣΕΥΣ sailed to İstanbul; the straße was wet; ﬁne cafe\u0301s, naïve façade.",
    "Tabs\tand\u00a0hard spaces\u2003and \x1c separators   all   in   a row",
    "emoji 👩‍👩‍👧 and flags 🇫🇷, then a \x00 NUL",
    "x" * 300,
)

ODD_CELLS = (
    "",
    "[]",
    "[null]",
    '[""]',
    '["\\ud83d"]',
    '["one","","two"]',
    "plain text\n\nwith lines",
    '","","',
    "a",
    "  ",
    "\n\n\n",
)


def cells(count: int, seed: int = 0) -> list[str]:
    """Returns raw cells: mostly JSON lists of one to three turns, some of the odd ones."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        if random.random() < 0.2:
            made.append(ODD_CELLS[random.integers(len(ODD_CELLS))])
            continue
        turns = [" ".join(random.choice(_SENTENCES, random.integers(1, 6))) for _ in range(random.integers(1, 4))]
        made.append(json.dumps(turns, ensure_ascii=bool(random.integers(2))))
    return made


def conversations(count: int, seed: int = 0) -> pa.Table:
    """Returns a table with the columns of `CONVERSATIONS`."""
    prompts, a, b = (cells(count, seed * 3 + offset) for offset in range(3))
    return pa.table([np.arange(count), [*map(str, range(count))], prompts, a, b], schema=CONVERSATIONS)


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
few_letters = st.text("ab AB \n\t\u00a0éİΣ'\"x1", max_size=40)
