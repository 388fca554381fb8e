"""Rows of texts and literals become token ids of a bounded length, cut within their texts."""

from collections.abc import Sequence

import numpy as np

from lmsys_ray.errors import UnscorableError
from lmsys_ray.prompts import truncation
from lmsys_ray.prompts.template import Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer

ELLIPSIS = " …"

LEAST_FIELD_TOKENS = 8
"""The room that each field needs at least; settings that leave less are refused."""

_FEWEST = 4
"""The room that each field of a row has at least; a row of so many turns that it has less is not scored."""


def cut_rows(tokenizer: BoundedTokenizer, rows: Sequence[Filled], room: int) -> list[np.ndarray]:
    """Returns the ids of each row, int32, at most `room`: its fields are cut in the middle, its literals never.

    The tokens of a row are shared as `shares` says. Raises `UnscorableError` for a row whose literals leave no room.
    """
    return [ids for (ids,) in cut_texts(tokenizer, [(row,) for row in rows], room)]


def cut_texts(tokenizer: BoundedTokenizer, rows: Sequence[Sequence[Filled]], room: int) -> list[list[np.ndarray]]:
    """Returns the ids of each text of each row, cut as by `cut_rows`; the texts of a row share the room."""
    texts = [text for row in rows for text in row]
    # Neither end of a field keeps more than half of the room, so the middle of a huge one is not tokenized.
    shortened = [{field: tokenizer.shorten(text, room // 2 + 1) for field, text in row.texts.items()} for row in texts]
    encoded = tokenizer.encode([row.template.render(cells) for row, cells in zip(texts, shortened, strict=True)])
    spans = [
        token_spans(row.template.spans(cells), offsets)
        for row, cells, (_, offsets) in zip(texts, shortened, encoded, strict=True)
    ]
    ellipsis = tokenizer.ids(ELLIPSIS)
    cut, place = [], 0
    for row in rows:
        here = slice(place, place := place + len(row))
        ids, fields = [ids for ids, _ in encoded[here]], spans[here]
        if (tokens := sum(map(len, ids))) > room:
            _check_room([span for each in fields for span in each], tokens, room)
        named = [field for text in row for field in text.template.fields]
        cut.append(truncation.balanced_texts(ids, fields, room, ellipsis, shares(named)))
    return cut


def token_spans(spans: Sequence[tuple[int, int]], offsets: np.ndarray) -> list[tuple[int, int]]:
    """Returns which tokens lie wholly in each span of characters; one that crosses an edge belongs to the literals.

    `offsets` [tokens, 2] says at which character each token begins and ends.
    """
    found = []
    for start, end in spans:
        first = int(np.searchsorted(offsets[:, 0], start, side="left"))
        found.append((first, max(first, int(np.searchsorted(offsets[:, 1], end, side="right")))))
    return found


def shares(fields: Sequence[str]) -> list[float]:
    """Returns the share of each field: those of `truncation.SHARES`, divided among the fields of one cell."""
    cells = [field.partition(".")[0] for field in fields]
    return [truncation.SHARES[cell] / cells.count(cell) for cell in cells]


def literal_tokens(tokenizer: BoundedTokenizer, *templates: Template) -> int:
    """Returns how many tokens templates have beside their fields."""
    return sum(len(tokenizer.ids(literal)) for template in templates for literal in template.literals if literal)


def _check_room(fields: Sequence[tuple[int, int]], tokens: int, room: int) -> None:
    sizes = [end - start for start, end in fields]
    literals = tokens - sum(sizes)
    least = literals + sum(min(_FEWEST, size) for size in sizes)
    if least > room:
        raise UnscorableError(
            f"the row has {len(fields)} texts and needs {literals} tokens beside them, which leaves too little of the "
            f"{room} that max_length allows; raise max_length, or set turns to last"
        )
