"""Which columns of a file hold the id and the scores of a row."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lmsys_ray.data.labels import COLUMNS
from lmsys_ray.errors import UsageError
from lmsys_ray.members.scores.settings import PROBABILITIES, SCORES

_KNOWN = (COLUMNS, PROBABILITIES, SCORES)
_SHOWN = 12


class ScoreColumns(NamedTuple):
    """The columns of a file of scores."""

    id: str
    values: tuple[str, ...]
    """Those of P(a), P(b) and P(tie), or of A's score and B's."""

    @property
    def all(self) -> list[str]:
        """The id's first."""
        return [self.id, *self.values]

    @property
    def two(self) -> bool:
        """Whether they hold a score of each response."""
        return len(self.values) == len(SCORES)


def chosen_columns(path: str, found: Sequence[str], named: Mapping[str, str]) -> ScoreColumns:
    """Returns the columns to read of a file that has the columns `found`; `named` is the setting `columns`.

    Raises `UsageError` where they are missing, there twice, or may be one or another.
    """
    identity = named.get("id", "id")
    keys = next((keys for keys in (PROBABILITIES, SCORES) if set(keys) & set(named)), None)
    choices = [tuple(named.get(key, key) for key in keys)] if keys else list(_KNOWN)
    there = [names for names in choices if set(names) <= set(found)]
    if identity not in found or not there:
        shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        hint = "; is its delimiter a comma?" if len(found) == 1 else ""
        accepted = " or ".join(", ".join(names) for names in choices)
        name = "" if keys and "id" in named else "; the setting columns names others"
        raise UsageError(f"{path} has the columns {shown}{hint}; accepted: {identity} with {accepted}{name}")
    if len(there) > 1:
        both = " and ".join(", ".join(names) for names in there)
        raise UsageError(f"{path} has the columns {both}; say by the setting columns which of them to read")
    columns = ScoreColumns(identity, there[0])
    twice = [name for name in columns.all if found.count(name) > 1 or columns.all.count(name) > 1]
    if twice:
        raise UsageError(f"{path}: the column {twice[0]} is there or is named twice; rename or drop all but one")
    return columns
