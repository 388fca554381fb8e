"""What the rows of a CSV file look like: the number of cells and the kind of ids."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lmsys_ray.data.readers.csv_grammar import Record, record_at

_SAMPLED_ROWS = 1000
_SHARE = 0.75
"""The least share of the ids at the beginning of a file that must be of its kind."""

_HEXADECIMAL = 8
"""The number of characters from which hexadecimal ids are recognised by their length."""

_TOKEN = r"[\w.:-]{1,64}"
_ANY = r'[^,"\r\n]*[^\s,"][^,"\r\n]*'


class RowShape:
    """Distinguishes rows of a file from other text; `sample` is text from a record near its beginning on."""

    def __init__(self, header: Sequence[str], sample: bytes) -> None:
        self.width = len(header)
        self._id = header.index("id") if "id" in header else 0
        self._sample = sample

    def is_row(self, line: bytes) -> bool:
        """Returns whether a line by itself has the cells of the header and an id of the file's kind."""
        record = record_at(line, 0, self.width)
        return isinstance(record, Record) and self.is_whole(record)

    def is_whole(self, record: Record) -> bool:
        """Returns whether a record has no fault, the cells of the header and an id of the file's kind."""
        fits = not record.fault and record.number == self.width
        return fits and self._kind.fullmatch(record.cells[self._id]) is not None

    def looks_like_row(self, line: bytes) -> bool:
        """Returns whether a line of text is a row; not where its first comma is followed by a space, as in prose."""
        return line.find(b", ") != line.find(b",") and self.is_row(line)

    def is_damaged(self, record: Record) -> bool:
        """Returns whether what follows may belong to a record: it has a fault, or breaks off after a closing quote."""
        return record.fault is not None or (record.quoted_end and record.number < self.width)

    def begins(self, text: bytes, at: int) -> bool:
        """Returns whether a row seems to begin at an offset.

        Where the id comes first only that is checked, so that damaged rows are recognised too.
        """
        if self._id == 0:
            return self._begin.match(text, at) is not None
        record = record_at(text, at, self.width)
        return isinstance(record, Record) and self.is_whole(record)

    def may_begin(self, data: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Returns whether rows may begin at some offsets, by the first two bytes there, bool [offsets]."""
        first, second = self._first_bytes
        return first[data[at]] & second[data[np.minimum(at + 1, len(data) - 1)]]

    @cached_property
    def _first_bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the second bytes that a row may have, bool [256] each."""
        kind = self._id_kind if self._id == 0 else IdKind(_ANY)
        return _bytes(kind.first), _bytes(kind.second and kind.second + ",")

    @cached_property
    def _id_kind(self) -> "IdKind":
        return id_kind(self._sampled_ids())

    @cached_property
    def _kind(self) -> re.Pattern[bytes]:
        return re.compile(self._id_kind.pattern.encode())

    @cached_property
    def _begin(self) -> re.Pattern[bytes]:
        return re.compile(rb'("?)(?:%b)\1,' % self._kind.pattern)

    def _sampled_ids(self) -> list[str]:
        """Returns the ids of rows or, if there are none, of the lines that have the cells of the header."""
        found: list[bytes] = []
        at, sure = 0, True
        while len(found) < _SAMPLED_ROWS and isinstance(record := record_at(self._sample, at, self.width), Record):
            fits = not record.fault and record.number == self.width
            if sure and (fits or (self._id == 0 and self.is_damaged(record))):
                found.append(record.cells[self._id])
            # What follows a damaged record may be a piece of it.
            sure = fits or (sure and not self.is_damaged(record))
            at = record.end
        if not found:
            lines = self._sample.split(b"\n", _SAMPLED_ROWS)[:-1]
            records = [record_at(line + b"\n", 0, self.width) for line in lines]
            found = [r.cells[self._id] for r in records if isinstance(r, Record) and r.number == self.width]
        return [identity.decode("utf-8", "replace") for identity in found]


def _bytes(characters: str) -> np.ndarray:
    """Returns which bytes are among ASCII characters, or all bytes if there are none, bool [256]."""
    return np.isin(np.arange(256), list(characters.encode())) | (not characters)


class IdKind(NamedTuple):
    """What ids look like."""

    pattern: str
    """A regular expression of ASCII bytes."""
    first: str = ""
    """The characters that ids may begin with; empty: any."""
    second: str = ""
    """The characters that may come second; empty: any."""


def id_kind(ids: Sequence[str]) -> IdKind:
    """Returns the narrowest of these kinds to which most ids of a sample belong.

    Digits; hexadecimal digits and hyphens of one length; a common prefix and digits; a token with a digit; a token. It
    is any text where fewer than half are tokens, or there is no id.
    """
    tokens = [identity for identity in ids if re.fullmatch(_TOKEN, identity, re.ASCII)]
    if not tokens or 2 * len(tokens) < len(ids):
        return IdKind(_ANY)
    length = Counter(map(len, tokens)).most_common(1)[0][0]
    beginning = Counter(re.split(r"[0-9]", token, maxsplit=1)[0] for token in tokens).most_common(1)[0][0]
    kinds = [
        IdKind(r"[0-9]{1,64}", string.digits, string.digits),
        *([IdKind(rf"[0-9A-Fa-f-]{{{length}}}", *[string.hexdigits + "-"] * 2)] if length >= _HEXADECIMAL else []),
        IdKind(rf"{re.escape(beginning)}[0-9]{{1,64}}", beginning[:1] or string.digits),
        IdKind(rf"(?=[^,\n]*[0-9]){_TOKEN}"),
    ]
    for kind in kinds:
        if sum(re.fullmatch(kind.pattern, token, re.ASCII) is not None for token in tokens) >= _SHARE * len(tokens):
            return kind
    return IdKind(_TOKEN)
