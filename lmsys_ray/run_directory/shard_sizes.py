"""How many rows the shards of a run have, also where the run was extended."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple


class Cut(NamedTuple):
    """Where shards of a size begin."""

    shard: int
    """The number of the first of them."""
    row: int
    """Its first row."""
    rows: int
    """The rows of each."""


@dataclass(frozen=True)
class ShardSizes:
    """The sizes of a run's shards: at each cut but the first, a shard ends early and the next ones may have more rows.

    Shards with large texts have fewer rows than these.
    """

    cuts: tuple[Cut, ...]
    """Ascending, the first at 0."""

    @classmethod
    def even(cls, rows: int) -> "ShardSizes":
        """Returns the sizes of a run that was never extended."""
        return cls((Cut(0, 0, rows),))

    @property
    def largest(self) -> int:
        """The most rows of any shard."""
        return max(cut.rows for cut in self.cuts)

    def room(self, row: int) -> int:
        """Returns how many rows a shard may have that begins at a row."""
        place = bisect_right([cut.row for cut in self.cuts], row) - 1
        later = self.cuts[place + 1 :]
        return min(self.cuts[place].rows, later[0].row - row) if later else self.cuts[place].rows

    def first_row(self, shard: int) -> int:
        """Returns the row at which a shard begins, unless texts are large."""
        place = bisect_right([cut.shard for cut in self.cuts], shard) - 1
        cut, later = self.cuts[place], self.cuts[place + 1 :]
        row = cut.row + (shard - cut.shard) * cut.rows
        return min(row, later[0].row) if later else row

    def rows(self, shard: int, lines: int) -> int:
        """Returns how many rows a shard has in a run of `lines` rows, unless texts are large."""
        return max(0, min(self.first_row(shard + 1), lines) - self.first_row(shard))
