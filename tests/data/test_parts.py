"""Parts of a file bring the tables that the whole brings, wherever they are cut."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.readers import BEGINNING, ReadPosition, json_lines, parts, raw, read_rows
from lmsys_ray.data.readers.parts import Part, parts_of
from lmsys_ray.data.schemas.reading import Reading

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LARGEST_CELL = 300
PLAIN = Reading()
ARENA = Reading("arena", id="row", carried=("label", "model_a"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, rows in ((json_lines, 7), (raw, 5)):
        monkeypatch.setattr(module, "_BATCH_ROWS", rows)
        monkeypatch.setattr(module, "_BATCH_BYTES", 900)
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    monkeypatch.setattr(parts, "_BLOCK", 300)
    monkeypatch.setattr(parts, "_BEGINNING_BYTES", 2)


def lines(randomly: random.Random, count: int, record: dict) -> bytes:
    """JSON Lines with all that readers know of: blank, overlong, damaged and foreign lines, CRLF, a mark."""
    text = randomly.choice([b"", b"\xef\xbb\xbf", b"\n" * 1500, b"\xef\xbb\xbf \r\n"])
    text += json.dumps({"id": "first", **record}).encode() + b"\n"
    for number in range(count):
        made = json.dumps({"id": number, **record, "more": "x" * randomly.randrange(60)}).encode()
        odd = [b"", b" \t ", b"\x0b\x0c", b" " * 400, b" " * 1500, b'{"id": 5, "prompt": "' + b"x" * 2000, b"\xff{}"]
        odd += [b"{", b"[1]", b'{"id": 7, "id": 8}', b"  " + made]
        line = randomly.choice(odd) if randomly.random() < 0.3 else made
        text += line + randomly.choice([b"\n", b"\r\n"])
    return text.rstrip(b"\n") if randomly.random() < 0.5 else text


def tables(path: Path, reading: Reading, cut: Sequence[Part]) -> list[pa.Table]:
    return [
        table
        for part in cut
        for table in read_rows(
            str(path), limit=part.rows, start=part.start, largest_cell=LARGEST_CELL, reading=reading, name="f"
        )
    ]


def cut(path: Path, reading: Reading, start: ReadPosition = BEGINNING, limit: int | None = None) -> list[Part]:
    return parts_of(str(path), start, limit, reading, LARGEST_CELL)


ANSWERED = [[{"role": "user", "content": "u"}, {"role": "assistant", "content": side}] for side in "ab"]
RECORDS: dict[Reading, dict] = {
    PLAIN: {"prompt": '["p"]', "response_a": '["a"]', "response_b": "text"},
    ARENA: {"winner": "tie", "model_a": "m", "conversation_a": ANSWERED[0], "conversation_b": ANSWERED[1]},
}


@pytest.mark.parametrize("reading", [PLAIN, ARENA], ids=["contest", "arena"])
def test_parts_of_json_lines_bring_the_same_tables(tmp_path: Path, reading: Reading) -> None:
    randomly, pieces, path = random.Random(8), 0, tmp_path / "in.jsonl"
    for _ in range(50):
        path.write_bytes(lines(randomly, randomly.randrange(1, 60), RECORDS[reading]))
        whole = tables(path, reading, [Part(BEGINNING)])
        pieces += len(found := cut(path, reading))
        assert tables(path, reading, found) == whole
        last = randomly.choice(whole)
        start = ReadPosition(last["start_at"][0].as_py(), last["start_row"][0].as_py())
        assert tables(path, reading, cut(path, reading, start)) == tables(path, reading, [Part(start)])
    assert pieces > 150


def test_parts_of_parquet_bring_the_same_tables(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    rows = [{"id": n, **RECORDS[ARENA], "more": str(n) * 20} for n in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=9)
    found = cut(path, ARENA)
    assert len(found) > 3
    assert sum(part.rows or 0 for part in found) < 100
    assert tables(path, ARENA, found) == tables(path, ARENA, [Part(BEGINNING)])
    start = found[2].start
    assert cut(path, ARENA, start) == found[2:]
    assert cut(path, ARENA, limit=found[0].rows) == [Part(BEGINNING)]


def test_a_limit_looks_no_further_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, looked = tmp_path / "in.jsonl", []
    path.write_bytes(b"".join(json.dumps({"id": n, **RECORDS[PLAIN]}).encode() + b"\n" for n in range(1000)))
    lines_of = parts._lines
    monkeypatch.setattr(parts, "_lines", lambda *of: (looked.append(1) or found for found in lines_of(*of)))
    assert len(cut(path, PLAIN, limit=30)) == 3
    assert len(looked) < 20
    assert len(cut(path, PLAIN)) > 50


def test_files_that_cannot_be_cut_stay_whole(tmp_path: Path) -> None:
    ranked = tmp_path / "ranked.jsonl"
    ranked.write_bytes((EXAMPLES / "nectar.jsonl").read_bytes() * 50)
    assert cut(ranked, Reading("ranked")) == [Part(BEGINNING)], "one record may be several rows"
    array = tmp_path / "array.json"
    array.write_text(json.dumps([{"id": n, **RECORDS[ARENA]} for n in range(100)]))
    assert cut(array, ARENA) == [Part(BEGINNING)]
    for name in ("in.csv", "in.jsonl.gz", "in.jsonl.zst"):
        (tmp_path / name).write_bytes(b"x\n" * 10_000)
        assert cut(tmp_path / name, PLAIN) == [Part(BEGINNING)]
