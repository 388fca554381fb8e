"""Writes the submission in the order of the input, and verifies it as a grader would before it is published."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.storage.files import AnyPath

_REMEDY = "all files of the run are checked; should this come again, please report it"
HEADER = ["id", "winner_model_a", "winner_model_b", "winner_tie"]

_BLOCK_BYTES = 16 << 20
"""How much is read back at a time, far more than any line."""


class Submission:
    """The consumer that writes the blend of all rows as one CSV; with `escape_formulas`, ids are `escaped`.

    The file is read back and compared with `ids`, `lines` in number, before it is renamed to `path`.
    """

    columns: Sequence[str] = ()

    def __init__(
        self,
        files: OutputFiles,
        path: AnyPath,
        ids: Iterator[pa.ChunkedArray],
        lines: int,
        escape_formulas: bool = False,
    ) -> None:
        self.path = path
        self._aside = files.aside(path)
        self._file = files.open(self._aside)
        self._ids, self._count, self._escape = ids, lines, escape_formulas
        self._file.write(",".join(HEADER) + "\n")

    def add(self, joined: JoinedShard) -> None:
        """Writes the lines of a shard."""
        names = joined.table["id"]
        self._file.writelines(_lines(escaped(names) if self._escape else names, joined.blended).to_pylist())

    def finish(self) -> list[str]:
        """Verifies the file; raises `DamagedError` for other ids, `RunError` for values that are not probabilities."""
        self._file.close()
        found = verify_submission(self._aside, map(escaped, self._ids) if self._escape else self._ids)
        if found != self._count:
            raise DamagedError(
                f"{self.path} would have {found} lines for {self._count} ids; a shard is missing, {_REMEDY}"
            )
        return [f"submission: {self.path}"]


def escaped(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns ids with ' before those that a spreadsheet would run as formulas; different ids stay different."""
    formula = pc.match_substring_regex(ids, "^'*[=+@\\t\\r-]")
    return pc.if_else(formula, pc.binary_join_element_wise("'", ids, ""), ids)


def _lines(ids: pa.ChunkedArray, probabilities: np.ndarray) -> pa.ChunkedArray:
    """Returns lines of CSV; probabilities have as many digits as reading them back exactly needs."""
    a, b, tie = (pc.cast(pa.array(column), pa.string()) for column in probabilities.T)
    return pc.binary_join_element_wise(_quoted(ids), a, b, pc.binary_join_element_wise(tie, "\n", ""), ",")


def _quoted(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Quotes the ids that need it."""
    within = pc.binary_join_element_wise('"', pc.replace_substring(ids, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(ids, '[",\r\n]'), within, ids)


def verify_submission(path: Path, ids: Iterator[pa.ChunkedArray]) -> int:
    """Checks a submission line by line and returns the number of lines.

    The rules are those of the competition's grader: exactly these ids, in order, with three values within [0, 1] whose
    sum rounds to 1 at 6 decimals. Raises as `Submission.finish` does, for the first line that breaks a rule.
    """
    number, waiting = 0, pa.chunked_array([], pa.string())
    for batch in _read(path):
        while len(waiting) < batch.num_rows and (more := next(ids, None)) is not None:
            waiting = pa.chunked_array([*waiting.chunks, *more.chunks], pa.string())
        expected, waiting = waiting.slice(0, batch.num_rows), waiting.slice(batch.num_rows)
        _check_batch(path, number, batch, expected)
        number += batch.num_rows
    rest = len(waiting) + sum(len(more) for more in ids)
    if rest:
        raise DamagedError(f"{path} ends {rest} lines before the last id; {_REMEDY}")
    return number


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    types = {"id": pa.string(), **{name: pa.float64() for name in HEADER[1:]}}
    try:
        with csv.open_csv(
            path,
            csv.ReadOptions(block_size=_BLOCK_BYTES),
            csv.ParseOptions(newlines_in_values=True),
            csv.ConvertOptions(column_types=types),
        ) as lines:
            if lines.schema.names != HEADER:
                raise DamagedError(f"{path}: the header is not {','.join(HEADER)}; {_REMEDY}")
            yield from lines
    except pa.ArrowInvalid as error:
        raise DamagedError(f"{path} is not a submission ({str(error).partition(chr(10))[0]}); {_REMEDY}") from None


def _check_batch(path: Path, before: int, batch: pa.RecordBatch, expected: pa.ChunkedArray) -> None:
    """Checks the ids and values of a batch, which comes after `before` other lines."""
    found = batch["id"].slice(0, len(expected))
    wrong_id = pc.index(pc.equal(found, expected.combine_chunks()), False).as_py()
    if wrong_id < 0 and len(expected) < batch.num_rows:
        wrong_id = len(expected)
    if wrong_id >= 0:
        wanted = expected[wrong_id] if wrong_id < len(expected) else None
        raise DamagedError(
            f"{path}, line {before + wrong_id + 2}: id {batch['id'][wrong_id]} where {wanted} belongs; {_REMEDY}"
        )
    values = np.column_stack([batch[name].to_numpy(zero_copy_only=False) for name in HEADER[1:]])
    good = ((values >= 0) & (values <= 1)).all(axis=1) & (np.round(values.sum(axis=1), 6) == 1)
    if not good.all():
        bad = int(np.argmin(good))
        raise RunError(
            f"{path}, line {before + bad + 2}: {values[bad].tolist()} are not probabilities; check the "
            "settings temperature, prior and the members' weights"
        )
