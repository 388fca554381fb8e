"""Scores in a file, which is read once and then held in memory."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import pyarrow as pa

from lmsys_ray.errors import RunError
from lmsys_ray.members.scores.columns import ScoreColumns, chosen_columns
from lmsys_ray.members.scores.files import column_names, read_columns
from lmsys_ray.members.scores.found import Found, named
from lmsys_ray.members.scores.id_index import IdIndex, hashes, texts
from lmsys_ray.members.scores.values import check_head, summing_to_one

_HEAD_ROWS = 1000


class ScoreFile:
    """A file with the scores of each id."""

    def __init__(self, path: str, named: Mapping[str, str]) -> None:
        """`named` is the setting `columns`. Raises `UsageError` where the file lacks them or is no such file."""
        self.path = path
        self.columns: ScoreColumns = chosen_columns(path, column_names(path), named)

    def check(self) -> None:
        """Raises `UsageError` where its first rows hold no scores."""
        head = np.concatenate(
            [values for _, values in islice(read_columns(self.path, self.columns.all), 1)]
            or [np.empty((0, len(self.columns.values)))]
        )
        check_head(self.path, self.columns.values, head[:_HEAD_ROWS])

    def ids(self) -> Iterator[pa.Array]:
        """Yields all ids, large_string."""
        return (ids for ids, _ in read_columns(self.path, [self.columns.id]))


class FileScores:
    """The scores of a file in memory: 12 bytes an id and 4 a number, beside the ids themselves."""

    def __init__(self, file: ScoreFile) -> None:
        """Reads the file; raises `RunError` where an id is in it twice."""
        self._path = file.path
        ids, hashed, numbers, self.rounded = [], [], [], 0
        for batch, values in read_columns(file.path, file.columns.all):
            values, rounded = summing_to_one(values)
            self.rounded += rounded
            ids.append(batch)
            hashed.append(hashes(batch))
            numbers.append(values.astype(np.float32))
        # One after another, each list freed before the next, since there may be 10^8 rows.
        self._ids = pa.concat_arrays([pa.array([], pa.large_string()), *ids])
        del ids
        self._values = np.concatenate([np.empty((0, len(file.columns.values)), np.float32), *numbers])
        del numbers
        joined = np.concatenate([np.empty(0, np.uint64), *hashed])
        del hashed
        self._index = IdIndex(self._ids, joined)
        if repeated := self._index.repeated():
            first, second = repeated
            raise RunError(
                f"{self._path}: id {self._ids[first]} is in rows {first + 1} and {second + 1}; keep one of them"
            )

    @property
    def lines(self) -> int:
        """The rows of the file."""
        return len(self._ids)

    def find(self, rows: pa.Table) -> Found:
        """Returns the scores of a table with the columns of `CONVERSATIONS`."""
        wanted = texts(rows["id"])
        places = self._index.places(wanted)
        there = places >= 0
        values = np.full((len(wanted), self._values.shape[1]), np.nan, np.float32)
        values[there] = self._values[places[there]]
        example = f", which has ids such as {self._ids[0]}" if len(self._ids) else ""
        return named(values, there, wanted, self._path, f"is not in {self._path}{example}")
