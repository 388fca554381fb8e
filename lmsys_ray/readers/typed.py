"""Values that a file itself types as lists or objects: turns, or refused by name, whatever the form of cells."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lmsys_ray.conversations import BadCellError
from lmsys_ray.readers.records import Records
from lmsys_ray.turns import check_roles, json_text, typed_turns


class TypedCells:
    """Makes cells of the values of successive records, and remembers which were typed and which cannot be used."""

    def __init__(self) -> None:
        self._typed: dict[str, list[int]] = {}
        self._refused: dict[int, str] = {}

    def cell(self, column: str, position: int, value: Any) -> str | None:
        """Returns a text as it is, and a list of turns or a message as the JSON text that a CSV would hold.

        A value that is none of these becomes None, and the reason why the record at `position` cannot be used.
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
        """Notes why a value cannot be used; of one record the first such reason counts."""
        self._refused.setdefault(position, f"{column} {reason}")

    def records(self, at: int, columns: list[pa.Array], faults: Mapping[int, str]) -> Records:
        """Returns the records, with the faults that are known of them besides; that of an id goes before a cell's."""
        refused = {position: reason for position, reason in self._refused.items() if columns[0][position].is_valid}
        return Records(at, columns, {**refused, **faults}, self._typed)


def no_utf8(error: UnicodeDecodeError) -> str:
    """Returns the reason of a text that is no UTF-8."""
    return f"is not valid UTF-8 (byte 0x{error.object[error.start]:02x})"


def _json_cell(column: str, value: Any) -> str:
    if not isinstance(value, list | dict):
        raise BadCellError("is neither text nor a list of turns")
    turns = typed_turns(value)
    check_roles(column, turns)
    return json_text(turns)
