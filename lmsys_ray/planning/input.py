"""What the input of a run holds: its rows, the rejects among them, and a sample of what members would score."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import expand_inputs, read_rows
from lmsys_ray.data.schemas.reading import row_names
from lmsys_ray.ensemble.rejects import kinds
from lmsys_ray.ingest.ingest import with_repeats_marked
from lmsys_ray.ingest.shard_size import COMPRESSED, COMPRESSED_ENDINGS, shard_rows
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
        return self.bytes * (COMPRESSED if self.path.lower().endswith((*COMPRESSED_ENDINGS, ".zst")) else 1)


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
    facts = _facts(counts, settings.limit, scale=_scale(done, size, share))
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


def _facts(counts: Counts, limit: int | None, scale: float) -> tuple[int, int, int, bool]:
    """Returns rows, scorable rows and rejects of an input `scale` times as large as what was read, and if exact."""
    if scale == 1 or (limit is not None and counts.rows >= limit):
        return counts.rows, counts.scorable, counts.rejects, True
    rows = round(counts.rows * scale)
    scale *= min(1.0, limit / rows) if limit is not None and rows else 1.0
    scorable, rejects = round(counts.scorable * scale), round(counts.rejects * scale)
    return min(rows, limit or rows), scorable, rejects, False


def _scale(done: Sequence[float], size: float, share: float) -> float:
    """Returns how much larger the input is than what was read of it, by bytes."""
    return 1.0 if share == 1 else max(1.0, size / max(1.0, sum(done)))


def _beginning(tables: Iterator[pa.Table], share: float, size: float) -> Iterator[tuple[pa.Table, float]]:
    """Yields the tables of a file of `size` bytes until a `share` of it is read, each with the bytes up to its end.

    Positions in the file count them where it has some, else the texts.
    """
    texts = 0.0
    first: tuple[int, float] | None = None
    for table in tables:
        at = table["start_at"][-1].as_py() or 0
        texts += sum(pc.sum(pc.binary_length(table[cell])).as_py() or 0 for cell in CELLS)
        # Texts are a part of the file; how large a part is known once reading has come to a later position.
        if first is None and at > share * size / 10 and at < size:
            first = (at, texts)
        read = texts * first[0] / max(1.0, first[1]) if first else texts
        yield table, min(read, size)
        if share < 1 and read >= share * size:
            return


def _files(settings: Settings) -> list[_File]:
    paths = expand_inputs(settings.input, settings.output)
    places = [path_of(path) for path in paths]
    folders = {str(folder): sizes(folder) for folder in {str(place.parent): place.parent for place in places}.values()}
    return [
        _File(path, name, folders[str(place.parent)].get(place.name, 0))
        for path, name, place in zip(paths, row_names(paths), places, strict=True)
    ]
