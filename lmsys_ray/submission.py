"""Writes the submission in the order of the input, and checks it as a grader would before it takes its place."""

import csv
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from lmsys_ray.errors import RunError
from lmsys_ray.run import written_whole

_REMEDY = "remove the run directory and start the command again"
HEADER = ["id", "winner_model_a", "winner_model_b", "winner_tie"]


def write_submission(
    path: Path, shards: Iterable[tuple[list[str], np.ndarray]], ids: Iterator[str], lines: int
) -> None:
    """Writes `shards` of (ids, probabilities [rows, 3]) as one CSV.

    The written file is read back and compared with the `ids` that the run promised, `lines` in number, before it is
    renamed to `path`. Raises `RunError` where it does not hold.
    """
    with written_whole(path) as aside:
        with aside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for names, probabilities in shards:
                writer.writerows(zip(names, *probabilities.T.tolist(), strict=True))
        found = verify_submission(aside, ids)
        if found != lines:
            raise RunError(f"{path} would have {found} lines for {lines} ids; a shard is missing, {_REMEDY}")


def verify_submission(path: Path, ids: Iterator[str]) -> int:
    """Checks a submission line by line and returns their number.

    The rules are those of the competition's grader: exactly these ids, in order, three values within [0, 1] whose sum
    rounds to 1 at 6 decimals. Raises `RunError` for the first line that breaks one.
    """
    csv.field_size_limit(1 << 28)
    number = 0
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if next(lines, None) != HEADER:
            raise RunError(f"{path}: the header is not {','.join(HEADER)}; {_REMEDY}")
        for number, (line, identity) in enumerate(zip_longest(lines, ids), 1):
            if line is None or identity is None or line[0] != identity:
                found = line[0] if line else None
                raise RunError(f"{path}, line {number + 1}: id {found} where {identity} belongs; {_REMEDY}")
            values = [float(value) for value in line[1:]]
            if len(values) != 3 or not all(0 <= value <= 1 for value in values) or round(sum(values), 6) != 1:
                raise RunError(f"{path}, line {number + 1}: {values} are no probabilities; {_REMEDY}")
    return number
