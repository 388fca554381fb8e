"""One member's scores in another run, found by row where the input is the same, and else by id."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lmsys_ray.errors import DamagedError, RunError, UsageError
from lmsys_ray.members.scores.found import Found, named
from lmsys_ray.members.scores.id_index import IdIndex, texts
from lmsys_ray.run_directory.formats import FormatError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested, Manifest, ManifestError
from lmsys_ray.run_directory.score_checks import TWO_SCORES, misfit, probabilities_of, scores_of
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.storage.files import names, path_of, read_bytes

_KEPT = 2
"""Shards that are held; two runs with shards of other sizes meet one several times."""


class ScoreRun:
    """A run directory and one of its members."""

    def __init__(self, path: str, member: str) -> None:
        """Raises `UsageError` where there is no such run or member, or where scores are missing."""
        self.path, self.member = path, member
        manifest = _manifest(path)
        self._run = RunDirectory(path, manifest.binding)
        self.shard_rows = manifest.shard_sizes.largest
        self.shards = (manifest.ingested or Ingested()).shards
        there = sorted(names(self._run.score(member, 0).parent.parent))
        if member not in there or (manifest.digests and member not in manifest.digests.members):
            raise UsageError(f"{path} has no scores of {member}; it has those of {', '.join(there) or 'nobody'}")
        missing = len(self._run.missing(member, self.shards))
        if missing or not manifest.ingested:
            raise UsageError(
                f"{path} has scores of {member} for {self.shards - missing} of its {self.shards} shards; start "
                "score.py on that run, which makes the others"
            )

    def ids(self) -> Iterator[pa.Array]:
        """Yields the ids of all rows, large_string."""
        for number in range(self.shards):
            yield texts(_of_another_run(self._run.read_shard, number, ["id"])["id"])

    def read(self, number: int) -> "ScoredRows":
        """Returns the rows of a shard with their scores; raises `RunError` where it is damaged."""
        shard = _of_another_run(self._run.read_shard, number, ["row", "id", "rejected"])
        scores = _of_another_run(self._run.read_scores, self.member, number)
        if fault := misfit(shard, scores):
            raise RunError(f"{self._run.score(self.member, number)} {fault}; start score.py on that run again")
        if "reason" in scores.column_names:
            scores = scores.filter(scores["reason"].is_null())
        found = (scores_of if TWO_SCORES[0] in scores.column_names else probabilities_of)(scores)
        rows = shard["row"].to_numpy()
        values = np.full((len(rows), found.shape[1]), np.nan, np.float32)
        values[np.searchsorted(rows, scores["row"].to_numpy())] = found
        return ScoredRows(rows, texts(shard["id"]), values)


@dataclass(frozen=True)
class ScoredRows:
    """Successive rows of a run."""

    rows: np.ndarray
    """Their numbers in the run, ascending."""
    ids: pa.Array
    values: np.ndarray
    """Probabilities, or scores of A and B, float32 [rows, 3 or 2]; NaN where the member has none."""


class RunScores:
    """Scores of a member of another run; only where that has other rows, they are all read and held in memory."""

    def __init__(self, source: ScoreRun) -> None:
        self._source = source
        self._ranges: dict[int, tuple[int, int]] = {}
        """By shard: its first row and its last one, of those that were read."""
        self._kept: dict[int, ScoredRows] = {}
        self._all: tuple[IdIndex, np.ndarray] | None = None
        self._columns = self._shard(0).values.shape[1] if source.shards else 3
        self._missing = f"has no score of {source.member} in {source.path}"

    def find(self, rows: pa.Table) -> Found:
        """Returns the scores of a table with the columns of `CONVERSATIONS`."""
        ids, numbers = texts(rows["id"]), rows["row"].to_numpy()
        values = self._by_row(numbers, ids) if len(ids) else np.empty((0, self._columns), np.float32)
        if values is None:
            values = self._by_id(ids)
        there = np.asarray(np.isfinite(values).all(axis=1))
        return named(values, there, ids, self._source.path, self._missing)

    def _by_row(self, numbers: np.ndarray, ids: pa.Array) -> np.ndarray | None:
        """Returns the values of the rows with these numbers; None where those of the other run have other ids."""
        shard, last = self._shard_with(int(numbers.min())), int(numbers.max())
        parts: list[ScoredRows] = []
        while shard is not None and shard < self._source.shards:
            parts.append(self._shard(shard))
            shard = None if parts[-1].rows[-1] >= last else shard + 1
        if not parts or parts[-1].rows[-1] < last:
            return None
        places = np.searchsorted(np.concatenate([part.rows for part in parts]), numbers)
        there = pa.concat_arrays([part.ids for part in parts]).take(pa.array(places))
        return np.concatenate([part.values for part in parts])[places] if there.equals(ids) else None

    def _by_id(self, ids: pa.Array) -> np.ndarray:
        """Returns the values of the rows with these ids, NaN where there are none."""
        if self._all is None:
            shards = [*prefetched(self._source.read, range(self._source.shards))]
            self._all = (
                IdIndex(pa.concat_arrays([pa.array([], pa.large_string()), *(shard.ids for shard in shards)])),
                np.concatenate([np.full((1, self._columns), np.nan, np.float32), *(shard.values for shard in shards)]),
            )
        index, values = self._all
        return values[index.places(ids) + 1]  # The first row stands for an id that is not there.

    def _shard_with(self, row: int) -> int | None:
        """Returns the shard that holds a row; None if there is none.

        Shards are full unless their texts are large, so that the first guess is nearly always right.
        """
        low, high = row // self._source.shard_rows, self._source.shards - 1
        guess = low
        while low <= high:
            first, last = self._ranges.get(guess) or self._range(guess)
            if first <= row <= last:
                return guess
            low, high = (low, guess - 1) if row < first else (guess + 1, high)
            guess = (low + high) // 2
        return None

    def _range(self, number: int) -> tuple[int, int]:
        rows = self._shard(number).rows
        return int(rows[0]), int(rows[-1])

    def _shard(self, number: int) -> ScoredRows:
        if number not in self._kept:
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = self._source.read(number)
            rows = self._kept[number].rows
            self._ranges[number] = int(rows[0]), int(rows[-1])
        return self._kept[number]


def _manifest(path: str) -> Manifest:
    file = path_of(path) / "manifest.json"
    try:
        return Manifest.from_bytes(read_bytes(file))
    except FileNotFoundError:
        raise UsageError(f"{path} is no run directory, for it has no manifest.json; name one, or a file") from None
    except FormatError as error:
        raise UsageError(f"{file} {error}") from None
    except ManifestError as error:
        raise UsageError(
            f"{file} cannot be read ({error}); start score.py on that run again, or name its submission.csv"
        ) from None


def _of_another_run(read: Callable[..., pa.Table], *arguments: object) -> pa.Table:
    """Returns what `read` does; what is damaged there is for the user to mend, not for this run to make again."""
    try:
        return read(*arguments)
    except DamagedError as error:
        fault = str(error).partition(";")[0]
        raise RunError(f"{fault}; start score.py on that run, which makes it again") from None
