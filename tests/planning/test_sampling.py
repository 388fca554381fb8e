"""The sample of an input: uniform, bounded, the same each time; and rows counted as a run counts them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.members.protocol import CONVERSATIONS
from lmsys_ray.planning import input as planned_input
from lmsys_ray.planning.options import Options
from lmsys_ray.planning.sampling import Sample, limited
from tests.local_job import make_settings, run_job, write_rows


def conversations(first: int, rows: int, text: str = "x") -> pa.Table:
    numbers = range(first, first + rows)
    texts = pa.array([text] * rows, pa.large_string())
    columns = [pa.array(numbers, pa.int64()), pa.array(map(str, numbers), pa.string()), texts, texts, texts]
    return pa.table(columns, schema=CONVERSATIONS)


def sampled(rows: int, of: int, batch: int) -> list[int]:
    sample = Sample(rows)
    for first in range(0, of, batch):
        sample.add(conversations(first, min(batch, of - first)))
    found: list[int] = sample.table["row"].to_pylist()
    return found


def test_each_part_of_a_stream_is_in_the_sample_alike() -> None:
    found = sampled(2000, of=100_000, batch=7000)
    assert len(found) == len(set(found)) == 2000
    assert found == sorted(found)
    counts = np.histogram(found, bins=10, range=(0, 100_000))[0]
    assert counts.min() > 150
    assert counts.max() < 250  # 200 and 13 of deviation


def test_it_does_not_depend_on_the_batches() -> None:
    assert sampled(50, of=1000, batch=1) == sampled(50, of=1000, batch=999)


def test_a_short_stream_is_kept_whole() -> None:
    assert sampled(100, of=37, batch=10) == list(range(37))
    assert sampled(100, of=0, batch=10) == []


def test_large_texts_make_the_sample_smaller_and_no_less_uniform() -> None:
    sample = Sample(1000, most_bytes=300_000)
    for first in range(0, 2000, 100):
        sample.add(conversations(first, 100, "y" * 1000))
    assert sample.table.nbytes <= 300_000
    assert sample.table.num_rows >= 20
    places = np.array(sample.table["row"])
    assert places.min() < 400
    assert places.max() > 1600


def test_a_limit_ends_the_stream_and_reads_nothing_after_it() -> None:
    read = []

    def tables() -> Iterator[pa.Table]:
        for first in range(0, 100, 10):
            read.append(first)
            yield conversations(first, 10)

    assert sum(table.num_rows for table in limited(tables(), 25)) == 25
    assert read == [0, 10, 20]


def test_counts_are_those_of_a_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.csv", 60, bad=(3, 17))
    with (tmp_path / "in.csv").open("a") as file:
        file.write("id5,again,a,b\n")
    settings = make_settings(tmp_path)
    facts, sample = planned_input.read_input(settings, Options(), lambda rows: None)
    ingested = run_job(settings).ingested
    assert (facts.rows, facts.rejects) == (ingested.rows, ingested.rejects) == (61, 3)
    assert facts.scorable == ingested.lines - ingested.unscored == sample.num_rows
    assert sum(facts.reasons.values()) == 3
    assert facts.exact


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
def test_a_large_input_is_read_in_part_and_its_rows_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    import gzip

    import pyarrow.parquet as pq

    rows = 40_000
    text = ["lorem ipsum dolor sit amet " * 4 + f"{n * 7919 % 99_991}" for n in range(rows)]
    table = pa.table({"id": [str(n) for n in range(rows)], "prompt": text, "response_a": text, "response_b": text})
    path = tmp_path / f"in.{ending}"
    if ending == "parquet":
        pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=False)
    else:
        import pyarrow.csv as pc

        with gzip.open(path, "wb") if ending.endswith("gz") else path.open("wb") as file:
            pc.write_csv(table, file)
    settings = make_settings(tmp_path, input=str(path))
    size = path.stat().st_size
    monkeypatch.setattr(planned_input, "LARGEST_WHOLE", size // 4)
    facts, _ = planned_input.read_input(settings, Options(), lambda rows: None)
    assert not facts.exact
    assert facts.rows_read < 0.7 * rows
    if ending == "csv":
        assert facts.rows == pytest.approx(rows, rel=0.05)
    whole, _ = planned_input.read_input(settings, Options(whole=True), lambda rows: None)
    assert (whole.rows, whole.exact) == (rows, True)
