"""Converts values that a file types as lists or objects to turns, or refuses them, whatever the form of cells."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lmsys_ray.data.conversations import BadCellError
from lmsys_ray.data.readers.records import Records
from lmsys_ray.data.turns import check_roles, json_text, typed_turns


class TypedCells:
    """Converts values of successive records to cells; notes which were typed and which cannot be used."""

    def __init__(self) -> None:
        self._typed: dict[str, list[int]] = {}
        self._refused: dict[int, str] = {}

    def cell(self, column: str, position: int, value: Any) -> str | None:
        """Returns a text unchanged, and a list of turns or a message as the JSON text that a CSV would hold.

        Any other value becomes None, with a reason why the record at `position` cannot be used.
        """
        if value is None or isinstance(value, str):
            return value
        try:
            cell = _json_cell(column, value)
        except BadCellError as error:
            self.refuse(column, position, str(error))
        except UnicodeDecodeError as error:
            self.refuse(column, position, no_utf8(error))
        else:
            self._typed.setdefault(column, []).append(position)
            return cell
        return None

    def refuse(self, column: str, position: int, reason: str) -> None:
        """Notes why a value cannot be used; for each record the first reason counts."""
        self._refused.setdefault(position, f"{column} {reason}")

    def records(self, at: int, columns: list[pa.Array], faults: Mapping[int, str]) -> Records:
        """Returns the records; their `faults`, and a missing id, take precedence over faults of cells."""
        refused = {position: reason for position, reason in self._refused.items() if columns[0][position].is_valid}
        return Records(at, columns, {**refused, **faults}, self._typed)


def no_utf8(error: UnicodeDecodeError) -> str:
    """Returns the reason for a text that is not UTF-8."""
    return f"is not valid UTF-8 (byte 0x{error.object[error.start]:02x})"


def _json_cell(column: str, value: Any) -> str:
    if not isinstance(value, list | dict):
        raise BadCellError("is neither text nor a list of turns")
    turns = typed_turns(value)
    check_roles(column, turns)
    return json_text(turns)
