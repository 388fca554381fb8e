"""Finds a run's ids among those of the labels, also where the labels have 123.0 for 123.

pandas turns a column of whole numbers with gaps into floats, and writes it that way.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.errors import RunError

_EXACT_BELOW = 1 << 53
"""From here on whole numbers are not exact as floats: two may have become equal."""

_WHOLE = re.compile(r"(-?\d+)\.0")
_FLOAT = re.compile(r"-?\d+\.0|-?\d+(\.\d+)?e\+\d+", re.IGNORECASE)


class LabelIds:
    """The distinct ids of a labels file; `found` and `found_as_whole` count the ids of a run that it has."""

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        self._whole = whole_numbers(ids)
        self.found = 0
        self.found_as_whole = 0

    def places(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """Returns the place in the labels of each of a run's ids, null where they lack it [rows]."""
        exact = pc.index_in(ids, value_set=self._ids)
        self.found += len(exact) - exact.null_count
        if self._whole is None:
            return exact
        whole = pc.index_in(ids, value_set=self._whole)
        self.found_as_whole += len(whole) - whole.null_count
        return pc.coalesce(exact, whole)

    def check(self, run: str) -> None:
        """Raises `RunError` where some ids were found unchanged and others as whole numbers."""
        if self.found and self.found_as_whole:
            raise RunError(
                f"the ids of the labels were written as floats, such as {self._ids[0]}, and {run} has {self.found:,} "
                f"in this form and {self.found_as_whole:,} as whole numbers; write them as the input has them"
            )

    def missed(self, run: str, example: str | None) -> RunError:
        """Returns the error for labels of which `run`, with ids such as `example`, has none."""
        shown = next((str(i) for i in self._ids if _FLOAT.fullmatch(str(i))), None)
        if shown is None:
            remedy = "give the labels of the rows that were scored"
        else:
            remedy = (
                f"{shown} is a whole number written as a float, as pandas does where a column has gaps: "
                "write the ids as text or Int64"
            )
        return RunError(
            f"no id of the labels is in {run} (they have {shown or self._ids[0]}, the run has {example}); {remedy}"
        )


def whole_numbers(ids: pa.Array) -> pa.Array | None:
    """Returns ids such as 123.0 as 123; None unless all are of this form and exact as floats."""
    matches = [_WHOLE.fullmatch(str(identity)) for identity in ids]
    numbers = [match[1] for match in matches if match and abs(int(match[1])) < _EXACT_BELOW]
    return pa.array(numbers, pa.string()) if len(numbers) == len(ids) else None
