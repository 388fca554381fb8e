"""JSON Lines that are something else, records that lack a key or have it twice, and lines that are too long."""

import json
import tracemalloc
from pathlib import Path

import pytest

from lmsys_ray.data.readers import check_columns, raw, read_rows
from lmsys_ray.data.readers.json_lines import read_json_lines
from lmsys_ray.errors import UsageError
from tests.data.bad_input.outcomes import Row, assert_accounted

COLUMNS = ("id", "prompt", "response_a", "response_b")


def record(number: int | str, **values: object) -> str:
    return json.dumps({"id": number, "prompt": "a", "response_a": "b", "response_b": "c", **values})


def written(folder: Path, *lines: str) -> Path:
    path = folder / "in.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ("[\n" + ",\n".join(map(record, range(9))) + "\n]\n", "012345678"),
        ("[" + ", ".join(map(record, range(9))) + "]", "012345678"),
        ("\ufeff[" + record(1) + "]", "1"),
        (" [ ]", ""),
    ],
)
@pytest.mark.parametrize("name", ["in.jsonl", "in.json"])
def test_an_array_is_read_whatever_the_name(tmp_path: Path, content: str, ids: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    if ids:
        assert_accounted(tmp_path, [path], [[*map(Row, ids)]])
    else:
        assert list(read_rows(str(path))) == []


def test_an_object_over_several_lines_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(json.loads(record(1)), indent=2))
    for read in (lambda: check_columns(str(path)), lambda: list(read_rows(str(path)))):
        with pytest.raises(UsageError, match="begins with an object over several lines where each line must be"):
            read()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_lacks_a_key_is_one_reject_wherever_it_stands(tmp_path: Path, place: int) -> None:
    lines = [record(1), record(2)]
    lines.insert(place, '{"id": 3, "prompt": "a", "response_b": "c"}')
    expected = [Row("1"), Row("2")]
    expected.insert(place, Row("3", "response_a is missing"))
    assert_accounted(tmp_path, [written(tmp_path, *lines)], [expected])


def test_a_key_that_no_record_has_is_a_missing_column(tmp_path: Path) -> None:
    path = written(tmp_path, *('{"id": 1, "prompt": "a", "response_b": "c"}',) * 3)
    with pytest.raises(UsageError, match="has no column response_a; it has id, prompt, response_b"):
        check_columns(str(path))


def test_a_record_that_names_a_needed_key_twice_is_a_reject(tmp_path: Path) -> None:
    twice = '{"prompt": "x", ' + record(2)[1:]
    id_twice = '{"id": 9, ' + record(3)[1:]
    other = '{"x": 9, "x": {"id": 1, "id": 2}, ' + record(4)[1:]
    path = written(tmp_path, record(1), twice, id_twice, other)
    expected = [Row("1"), Row("2", "names the key prompt twice"), Row(None, "names the key id twice"), Row("4")]
    assert_accounted(tmp_path, [path], [expected])


def test_a_line_that_is_too_long_is_a_reject_and_is_not_held(tmp_path: Path) -> None:
    path, size = tmp_path / "in.jsonl", 30 << 20
    with path.open("w") as file:
        for number in (1, "two", 3):
            value = "x" * (size if number != 3 else 1)
            file.write(record(number, prompt=value) + "\n")
        file.write('{"prompt": "' + "x" * size)
    tracemalloc.start()
    found = [
        (batch.columns[0][place].as_py(), batch.faults.get(place))
        for batch in read_json_lines(str(path), COLUMNS, 0, largest_cell=1 << 18)
        for place in range(len(batch.columns[0]))
    ]
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    reason = "is a line of {:,} bytes, more than 4 times largest_cell = 262144"
    assert found == [
        ("1", reason.format(size + len(record(1)))),
        ("two", reason.format(size + len(record("two")))),
        ("3", None),
        (None, reason.format(size + 12)),
    ]


def test_reading_goes_on_behind_a_line_that_is_too_long(tmp_path: Path) -> None:
    path = written(tmp_path, record(1), record(2, prompt="x" * 5000), record(3))
    batches = list(read_json_lines(str(path), COLUMNS, len(record(1)) + 1, largest_cell=1000))
    assert [batch.columns[0].to_pylist() for batch in batches] == [["2", "3"]]
    assert list(batches[0].faults) == [0]


def test_a_first_line_that_is_too_long_is_not_held_to_find_the_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "LARGEST_CELL", 1 << 10)
    path = written(tmp_path, record(1, prompt="x" * (20 << 20)), record(2))
    tracemalloc.start()
    try:
        assert raw.columns_of(str(path)) == list(COLUMNS)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
