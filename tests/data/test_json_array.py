"""JSON arrays are read in blocks, and from the middle, as `json.load` reads them whole."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.data.readers import json_array, read_rows
from lmsys_ray.data.readers.json_array import read_json_array
from lmsys_ray.data.readers.raw import read_raw
from lmsys_ray.data.schemas.row import Refused
from lmsys_ray.errors import RunError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4) | VALUES, max_size=12)


@settings(deadline=None, max_examples=150)
@given(RECORDS, st.sampled_from([None, 1]), st.integers(1, 40), st.booleans(), st.booleans())
def test_blocks_and_places_to_begin_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory,
    records: list,
    indent: int | None,
    block: int,
    ascii_only: bool,
    mark: bool,
) -> None:
    path = tmp_path_factory.mktemp("array") / "in.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8-sig" if mark else "utf-8", errors="surrogatepass")
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        return
    expected = [record if isinstance(record, dict) else None for record in records]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_BLOCK", block)
        patch.setattr(json_array, "_BATCH_ROWS", 3)
        for at, rows in read_all(path, 0):
            later = [row for _, rows in read_all(path, at) for row in rows]
            assert later == expected[len(expected) - len(later) :]
            assert later[: len(rows)] == rows
        assert [row for _, rows in read_all(path, 0) for row in rows] == expected


def read_all(path: Path, at: int) -> list[tuple[int, list]]:
    with path.open("rb") as stream:
        return [
            (raw.at, [None if isinstance(record, Refused) else record for record in raw.records])
            for raw in read_json_array(str(path), stream, at, 1 << 20)
        ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"id": 1}, {"id": 2', "is damaged after 1 rows of its array"),
        ('[{"id": 1}, {"id" 2}]', "is damaged after 1 rows of its array"),
        ('[{"id": 1}, ' + "[" * 100_000, "is JSON nested too deeply after row 1"),
        ('[{"id": 1}, {"id": "\xff"}]', "is not valid UTF-8"),
    ],
)
def test_a_damaged_array_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=sentence):
        list(read_raw(str(path), list, 0, 1 << 20))


def test_an_object_beyond_the_limit_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[{"id": 1, "prompt": "' + "x" * (9 << 20) + '"}]')
    with pytest.raises(RunError, match="is damaged after 0 rows"):
        list(read_rows(str(path), largest_cell=1 << 10))
