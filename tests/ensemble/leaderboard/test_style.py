"""What is counted of a response, against Python's own JSON and regular expressions."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.data.conversations import TYPED, CellForm
from lmsys_ray.ensemble.leaderboard.style import FEATURES, counts, style_differences

RESPONSE = """# Title

Some **bold** text, __more__ of it and a * star.
- one
  * two
+ three
10. four
-not an item
#not a header
####### nor this
## Second
```python
# a comment
- not counted **either**
```
***"""


def by_python(text: str) -> list[int]:
    prose = re.sub("```[^`]*```", "`", text)
    return [
        len(text),
        len(re.findall(r"^#{1,6}\s", prose, re.MULTILINE | re.ASCII)),
        len(re.findall(r"\*\*[^*\n]+\*\*", prose)) + len(re.findall(r"__[^_\n]+__", prose)),
        len(re.findall(r"^\s*(?:[-*+]|\d+\.)\s", prose, re.MULTILINE | re.ASCII)),
    ]


def counted(cells: list[str | None], form: CellForm = "auto") -> list[list[float]]:
    return counts("both", pa.chunked_array([pa.array(cells, pa.large_string())]), form).tolist()


def test_counts_of_a_response() -> None:
    assert by_python(RESPONSE)[1:] == [2, 2, 4]
    assert counted([RESPONSE]) == [by_python(RESPONSE)]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_escapes_are_decoded(ascii_only: bool) -> None:
    """A line break, an escaped backslash before an n, a quote, letters that JSON escapes, one beyond the plane."""
    turns = [RESPONSE, 'C:\\notes\\# a "quoted" é', "\n# ü\n- \N{GRINNING FACE} **b**"]
    cell = json.dumps(turns, ensure_ascii=ascii_only)
    assert counted([cell]) == [by_python("\n".join(turns))]
    escaped = json.dumps([RESPONSE]).replace("\\n", "\\u000a").replace("# ", "\\u0023\\u0020")
    assert counted([escaped]) == [by_python(RESPONSE)]


def test_cells_of_any_form() -> None:
    cell = json.dumps(["# a", None, "- b"])
    assert counted([cell, "# a\n- b", None, "", "[]"]) == [
        by_python("# a\n\n- b"),
        by_python("# a\n- b"),
        *([[0, 0, 0, 0]] * 3),
    ]
    assert counted([TYPED + cell, cell], "text") == [by_python("# a\n\n- b"), by_python(cell)]


def test_random_texts_are_counted_as_by_python() -> None:
    generator = np.random.default_rng(0)
    parts = ["# ", "#", "**", "__", "* ", "- ", "-", "1. ", "+", " ", "\n", "\n", "\n", "a", "b c", "`", "```", "\\"]
    texts = ["".join(generator.choice(parts, generator.integers(40))) for _ in range(3000)]
    expected = [by_python(text) for text in texts]
    assert min(np.sum(expected, axis=0)) > 100
    assert counted([json.dumps([text]) for text in texts]) == expected


def test_differences_are_shares_of_both() -> None:
    a, b = (pa.chunked_array([pa.array(cells, pa.large_string())]) for cells in (["abc", "", "# a"], ["a", "", "# b"]))
    assert style_differences("length", a, b, "auto").tolist() == [[2 / 5], [0], [0]]
    assert style_differences("markdown", a, b, "auto").tolist() == [[0, 0, 0]] * 3
    assert style_differences("both", a, b, "auto").shape == (3, len(FEATURES["both"]))
