"""What the input of a run holds: its rows, the rejects among them, and a sample of what members would score."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import expand_inputs, read_rows
from lmsys_ray.data.schemas.reading import row_names
from lmsys_ray.ensemble.rejects import kinds
from lmsys_ray.ingest.ingest import with_repeats_marked
from lmsys_ray.ingest.shard_size import shard_rows, text_bytes
from lmsys_ray.ingest.unique_ids import SeenIds
from lmsys_ray.planning.options import Options
from lmsys_ray.planning.sampling import Counts, Sample, count_rows, limited
from lmsys_ray.scoring.reading import recognised
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import path_of, sizes

LARGEST_WHOLE = 1 << 30
"""Bytes of text of an input that is read to its end unasked; of a larger one the beginning of each file is read."""


@dataclass(frozen=True)
class InputFacts:
    """What was found in the input; numbers of rows are of the whole of it."""

    files: int
    bytes: int
    schema: str
    """The schema that was recognised."""
    sentences: list[str]
    """How the input is read."""
    rows: int
    scorable: int
    """Rows that members score."""
    rejects: int
    reasons: dict[str, int]
    """Rejects among the rows that were read, by kind, the most frequent first."""
    warnings: int
    """Warnings about rows that were read."""
    rows_read: int
    exact: bool
    """Whether the numbers were counted, not estimated from bytes."""
    row_bytes: float
    """The texts of a scorable row, UTF-8, in the mean."""
    shard_rows: int
    seconds: float
    """What reading took."""


@dataclass(frozen=True)
class _File:
    """One file of the input."""

    path: str
    name: str
    bytes: int

    @property
    def text_bytes(self) -> float:
        """The size of its text, an estimate where it is compressed."""
        return text_bytes(self.path, self.bytes)


def read_input(settings: Settings, options: Options, on_rows: Callable[[int], None]) -> tuple[InputFacts, pa.Table]:
    """Returns what the input holds, and the sample with the columns of `CONVERSATIONS`; nothing is written.

    Rows are checked as ingest checks them. Raises `UsageError` and `RunError` as reading a run's input does.
    """
    began = time.perf_counter()
    files = _files(settings)
    reading, sentences = recognised(settings, [file.path for file in files])
    size = sum(file.text_bytes for file in files)
    share = 1.0 if options.whole or size <= LARGEST_WHOLE else LARGEST_WHOLE / size
    done = [0.0] * len(files)
    """Bytes of each file that were read."""

    def tables() -> Iterator[pa.Table]:
        for place, file in enumerate(files):
            whole = read_rows(
                file.path, settings.cells, largest_cell=settings.largest_cell, reading=reading, name=file.name
            )
            for table, read in _beginning(whole, share, file.text_bytes):
                done[place] = read
                yield table

    sample, seen = Sample(options.sample), SeenIds()
    counts = count_rows(
        limited(tables(), settings.limit), sample, lambda rows: with_repeats_marked(rows, seen), on_rows
    )
    listed = [{"path": file.path, "bytes": file.bytes} for file in files]
    facts = _of_all(counts, settings.limit, None if share == 1 else max(1.0, size / max(1.0, sum(done))))
    return (
        InputFacts(
            files=len(files),
            bytes=sum(file.bytes for file in files),
            schema=reading.schema,
            sentences=sentences,
            warnings=counts.warnings,
            rows_read=counts.rows,
            reasons=dict(kinds(counts.reasons).most_common()),
            row_bytes=counts.text_bytes / max(1, counts.scorable),
            shard_rows=shard_rows(settings.shard_rows, listed, settings.limit),
            seconds=time.perf_counter() - began,
            rows=facts[0],
            scorable=facts[1],
            rejects=facts[2],
            exact=facts[3],
        ),
        sample.table,
    )


def _of_all(counts: Counts, limit: int | None, scale: float | None) -> tuple[int, int, int, bool]:
    """Returns rows, scorable rows and rejects of the whole input, and whether they are exact.

    It is `scale` times as large as what was read of it; None: it was read to its end.
    """
    if scale is None or (limit is not None and counts.rows >= limit):
        return counts.rows, counts.scorable, counts.rejects, True
    rows = min(round(counts.rows * scale), limit or sys.maxsize)
    scale = rows / max(1, counts.rows)
    return rows, round(counts.scorable * scale), round(counts.rejects * scale), False


def _beginning(tables: Iterator[pa.Table], share: float, size: float) -> Iterator[tuple[pa.Table, float]]:
    """Yields the tables of a file of `size` bytes until a `share` of it is read, each with the bytes up to its end.

    Positions in the file count them where it has some, else the texts.
    """
    texts, ratio, last = 0.0, 1.0, 0
    for table in tables:
        at = table["start_at"][0].as_py() or 0
        if at > max(last, share * size / 100) and texts:  # row groups of Parquet stay below that
            ratio = at / texts
        last = at
        texts += sum(pc.sum(pc.binary_length(table[cell])).as_py() or 0 for cell in CELLS)
        yield table, texts * ratio
        if share < 1 and texts * ratio >= share * size:
            return


def _files(settings: Settings) -> list[_File]:
    paths = expand_inputs(settings.input, settings.output)
    places = [path_of(path) for path in paths]
    folders = {str(folder): sizes(folder) for folder in {str(place.parent): place.parent for place in places}.values()}
    return [
        _File(path, name, folders[str(place.parent)].get(place.name, 0))
        for path, name, place in zip(paths, row_names(paths), places, strict=True)
    ]
