"""Files of scores in every format that is read, and what is said of those that are not."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.protocol import CONVERSATIONS, Scores
from lmsys_ray.members.registry import kind_named, validated

KIND = kind_named("scores")
IDS = ["7", "id-8", "nine, or 9", "1e3", "0"]
VALUES = np.random.default_rng(5).dirichlet([1, 1, 1], len(IDS))
NAMES = ["winner_model_a", "winner_model_b", "winner_tie"]


def rows_of(ids: list[str]) -> pa.Table:
    empty = [""] * len(ids)
    return pa.table([range(len(ids)), ids, empty, empty, empty], schema=CONVERSATIONS)


def found(path: Path, ids: list[str], **settings: Any) -> Scores:
    chosen = KIND.preflight(validated({"kind": "scores", "path": str(path), **settings}), "members.m")
    return KIND.scorer(chosen, "auto").score(rows_of(ids))


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(RunError) as refused:
        found(path, ["7"], **settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def records(names: list[str], ids: list[Any] = IDS, values: np.ndarray = VALUES) -> list[dict[str, Any]]:
    return [
        {"other": "text", "id": one, **dict(zip(names, row, strict=True))}
        for one, row in zip(ids, values.tolist(), strict=True)
    ]


def csv_text(made: list[dict[str, Any]]) -> bytes:
    lines = [
        ",".join(made[0]),
        *(",".join(f'"{value}"' if "," in str(value) else str(value) for value in row.values()) for row in made),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def json_text(made: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in made).encode()


def parquet(path: Path, made: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(made), path, row_group_size=2)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "s.csv": lambda path, made: path.write_bytes(csv_text(made)),
    "s.csv.gz": lambda path, made: path.write_bytes(gzip.compress(csv_text(made))),
    "s.jsonl": lambda path, made: path.write_bytes(json_text(made)),
    "s.jsonl.gz": lambda path, made: path.write_bytes(gzip.compress(json_text(made))),
    "s.parquet": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("names", [NAMES, ["a", "b", "tie"]])
def test_every_format_gives_the_same(tmp_path: Path, name: str, names: list[str]) -> None:
    WRITERS[name](tmp_path / name, records(names))
    order = [3, 0, 4, 2, 1]
    scores = found(tmp_path / name, [IDS[place] for place in order])
    np.testing.assert_array_equal(scores.probabilities, VALUES[order].astype(np.float32))
    assert scores.failed == {}


@pytest.mark.parametrize("name", WRITERS)
def test_two_scores_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    values = np.array([[3.5, -7], [0, 0], [1e6, 2], [-1, 1], [0.25, 0.5]])
    WRITERS[name](tmp_path / name, records(["mine", "score_b"], values=values))
    scores = found(tmp_path / name, IDS, columns={"score_a": "mine"})
    assert scores.probabilities is None
    assert {key: value.tolist() for key, value in scores.raw.items()} == {
        "score_a": values[:, 0].tolist(),
        "score_b": values[:, 1].tolist(),
    }
    assert all(value.dtype == np.float32 for value in scores.raw.values())


@pytest.mark.parametrize("name", WRITERS)
def test_whole_numbers_are_ids(tmp_path: Path, name: str) -> None:
    ids = [3, 2**53 + 1, -4, 17, 0]
    WRITERS[name](tmp_path / name, records(NAMES, ids))
    scores = found(tmp_path / name, [str(one) for one in ids])
    np.testing.assert_array_equal(scores.probabilities, VALUES.astype(np.float32))


def test_ids_of_json_may_be_of_both_types(tmp_path: Path) -> None:
    ids = [3, "four", 5, "6", 7]
    (tmp_path / "s.jsonl").write_bytes(json_text(records(NAMES, ids)) + b'\n{"id": 8, "winner_model_a": NaN}\n')
    scores = found(tmp_path / "s.jsonl", [*map(str, ids), "8"])
    np.testing.assert_array_equal(scores.probabilities[:5], VALUES.astype(np.float32))
    assert scores.failed.keys() == {5}


def test_ids_that_no_input_can_have_are_passed_over(tmp_path: Path) -> None:
    lines = [b'{"id": "\\ud83d", "a": 1, "b": 0, "tie": 0}', b'{"id": null, "a": 1, "b": 0, "tie": 0}'] * 2
    (tmp_path / "s.jsonl").write_bytes(b"\n".join([*lines, b'{"id": "x", "a": 0, "b": 0, "tie": 1}']))
    scores = found(tmp_path / "s.jsonl", ["x", "\ufffd"])
    assert scores.failed.keys() == {1}
    assert scores.probabilities is not None
    assert scores.probabilities[0].tolist() == [0, 0, 1]


def test_columns_may_have_any_names(tmp_path: Path) -> None:
    made = [
        {"row_id": one, "p_tie": row[2], "b": row[1], "first": row[0]} for one, row in zip(IDS, VALUES, strict=True)
    ]
    (tmp_path / "s.csv").write_bytes(csv_text(made))
    columns = {"id": "row_id", "tie": "p_tie", "a": "first"}
    np.testing.assert_array_equal(
        found(tmp_path / "s.csv", IDS, columns=columns).probabilities, VALUES.astype(np.float32)
    )


def test_a_large_file_is_read_in_parts(tmp_path: Path) -> None:
    """Texts beside the scores make parts of some thousand rows, and hold line breaks."""
    count = 12_000
    values = np.random.default_rng(1).dirichlet([1, 1, 1], count)
    text = ("x" * 400 + "\n") * 2
    with (tmp_path / "s.csv").open("w") as file:
        file.write("id,text,a,b,tie\n")
        file.writelines(f'{n},"{text}",{a!r},{b!r},{tie!r}\n' for n, (a, b, tie) in enumerate(values.tolist()))
    with (tmp_path / "s.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"id": str(n), "text": text, "a": a, "b": b, "tie": tie}) + "\n"
            for n, (a, b, tie) in enumerate(values.tolist())
        )
    order = np.random.default_rng(2).permutation(count)
    for name in ("s.csv", "s.jsonl"):
        scores = found(tmp_path / name, [str(n) for n in order.tolist()])
        np.testing.assert_array_equal(scores.probabilities, values[order].astype(np.float32))


def test_rows_without_scores_are_named(tmp_path: Path) -> None:
    lines = ["1,0.2,0.3,0.5", "2,nan,0.5,0.5", "3,,0.5,0.5", "4,0.7,0.7,0.7", "5,-0.5,1,0.5", "6, 0.5 ,0.25,0.25"]
    more = [f"{n},0.2,0.3,0.5" for n in range(7, 14)]
    (tmp_path / "s.csv").write_text("\n".join(["id,a,b,tie", *lines, ",1,0,0", *more, "14,none,0,1"]))
    scores = found(tmp_path / "s.csv", ["1", "2", "3", "4", "5", "6", "14", "15", ""])
    path, none = tmp_path / "s.csv", f"its row in {tmp_path / 's.csv'} holds no probabilities"
    assert scores.failed == {
        1: f"{none} (id 2: nan, 0.5, 0.5)",
        2: f"{none} (id 3: nan, 0.5, 0.5)",
        3: f"{none} (id 4: 0.7, 0.7, 0.7)",
        4: f"{none} (id 5: -0.5, 1, 0.5)",
        6: f"{none} (id 14: nan, 0, 1)",
        7: f"its id is not in {path}, which has ids such as 1 (id 15)",
        8: f"its id is not in {path}, which has ids such as 1 (id )",
    }
    np.testing.assert_allclose(scores.probabilities[[0, 5]], [[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]], atol=1e-7)


def test_scores_that_are_not_finite_are_named(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,score_a,score_b\n1,2,3\n2,inf,3\n3,1,\n4,5,6\n5,7,8\n")
    scores = found(tmp_path / "s.csv", ["1", "2", "3", "4"])
    assert scores.failed.keys() == {1, 2}
    assert scores.failed[2] == f"its row in {tmp_path / 's.csv'} holds no finite scores (id 3: 1, nan)"


def test_rounded_probabilities_are_divided_by_their_sum(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,a,b,tie\n1,0.33,0.33,0.33\n2,0.2,0.3,0.5\n3,0.3333,0.3333,0.3333\n4,1,0,0.03\n")
    chosen = KIND.preflight(validated({"kind": "scores", "path": str(tmp_path / "s.csv")}), "members.m")
    scorer = KIND.scorer(chosen, "auto")
    scores = scorer.score(rows_of(["1", "2", "3", "4"]))
    np.testing.assert_allclose(scores.probabilities[[0, 2]], 1 / 3, rtol=1e-6)
    assert scores.failed.keys() == {3}
    (note,) = scorer.notes
    assert note.startswith(f"2 of 4 rows of {tmp_path / 's.csv'} sum to 1 within 0.02 only")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "id,a,b\n1,1,0\n",
            "has the columns id, a, b; accepted: id with winner_model_a, winner_model_b, winner_tie or ",
        ),
        ("row,a,b,tie\n1,1,0,0\n", "has the columns row, a, b, tie; accepted: id with "),
        ("id;a;b;tie\n1;1;0;0\n", "has the columns id;a;b;tie; is its delimiter a comma?; accepted"),
        ("id,a,b,tie,score_a,score_b\n1,1,0,0,1,2\n", "has the columns a, b, tie and score_a, score_b; say by the"),
        ("id,a,b,tie,a\n1,1,0,0,1\n", "the column a is there or is named twice; rename or drop all but one"),
        ("id,a,b,tie\n", "holds no rows; give a file with"),
        ("", "cannot be read (Empty CSV file"),
        ("id,a,b,tie\n1,34.9,34.2,30.9\n2,50,25,25\n", "row 1 has a, b, tie = 34.9, 34.2, 30.9, which are percentages"),
        (
            "id,a,b,tie\n1,2.5,-1,0.3\n2,0.1,4,0\n",
            "row 1 has a, b, tie = 2.5, -1, 0.3, and so its first rows are no pr",
        ),
        ("id,score_a,score_b\n1,x,2\n2,3,y\n", "row 1 has score_a, score_b = nan, 2, and so do most of its first rows"),
        ("id,a,b,tie\n1,1,0,0\n2,1,0\n", "cannot be read (CSV parse error: Expected 4 columns, got 3: 2,1,0); mend it"),
        ("id,a,b,tie\n1,1,0,0\n2,1,0,0\n1,0,1,0\n", "id 1 is in rows 1 and 3; keep one of them"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    said = refusal(tmp_path / "s.csv")
    assert f"{tmp_path / 's.csv'}" in said
    assert sentence in said


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("s.txt", b"id,a,b,tie\n", "has an unknown ending; accepted are .csv .jsonl .json (also .gz, .zst) .parquet"),
        ("s.csv.gz", b"id,a,b,tie\n1,1,0,0\n", "is not compressed with gzip; rename it without .gz"),
        ("s.csv.gz", gzip.compress(b"id,a,b,tie\n" + b"1,1,0,0\n" * 9, mtime=0)[:-12], "cannot be read ("),
        ("s.parquet", b"PAR1 and no more", "cannot be read ("),
        ("s.csv", b"id,a,b,tie,\xff\n1,1,0,0,x\n", "cannot be read ("),
        ("s.csv", b"id,a,b,tie\n\xff,1,0,0\n", "cannot be read ("),
        ("s.jsonl", b'[{"id": 1}]\n', "row 1 is no object"),
        ("s.jsonl", b'{"id": 1, "a":\n', "row 1 is not valid JSON"),
        ("s.jsonl", b'{"id": 1.0, "a": 1, "b": 0, "tie": 0}\n', "row 1 has id = 1.0; write ids as text or as whole"),
        ("s.jsonl", b"", "is empty"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    said = refusal(tmp_path / name)
    assert said.startswith(f"settings: members.m.path: {tmp_path / name}")
    assert sentence in said
    assert "input:" not in said


def test_types_of_parquet_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    values = {name: [0.5] for name in NAMES}
    for table, sentence in (
        ({"id": [1.0], **values}, "has double in the column id; write ids as text or as whole numbers"),
        (
            {"id": ["1"], **values, "winner_tie": [[1.0]]},
            "has list<element: double> in the column winner_tie; accepted",
        ),
    ):
        pq.write_table(pa.table(table), tmp_path / "s.parquet")
        assert sentence in refusal(tmp_path / "s.parquet")


def test_columns_of_both_kinds_are_refused(tmp_path: Path) -> None:
    for columns in ({"a": "x", "score_a": "y"}, {"b": ""}, {"other": "x"}):
        with pytest.raises(ValueError, match=r"mapping of id, a, b|either a, b, tie for"):
            validated({"kind": "scores", "path": "s.csv", "columns": columns})


def check_ids(path: Path, ids: list[str]) -> None:
    KIND.check_ids(validated({"kind": "scores", "path": str(path)}), "members.m", pa.array(ids))


def test_a_file_of_other_rows_is_refused_with_an_id_of_each_side(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,a,b,tie\n" + "".join(f"{n}.0,1,0,0\n" for n in range(9)))
    with pytest.raises(UsageError) as refused:
        check_ids(path, ["3", "4"])
    assert str(refused.value) == (
        f"settings: members.m.path: {path} has none of the first 2 ids of the input: not 3, and its own begin with "
        "0.0; 0.0 is a whole number written as a float, as pandas does where a column has gaps: write ids as text or "
        "Int64"
    )
    with pytest.raises(UsageError, match=r"has 1 of the first 3 ids of the input: not x, and its own begin with 0\.0"):
        check_ids(path, ["8.0", "x", "y"])
    check_ids(path, ["8.0", "x"])
    check_ids(path, [])
