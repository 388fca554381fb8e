"""Rows of texts and literals become token ids of a bounded length, cut within their texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmsys_ray.errors import UnscorableError
from lmsys_ray.prompts import truncation
from lmsys_ray.prompts.kept import WHOLE, Kept, shares_kept
from lmsys_ray.prompts.template import Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer

ELLIPSIS = " …"

LEAST_FIELD_TOKENS = 8
"""The room that each field needs at least; settings that leave less are refused."""

_FEWEST = 4
"""The room that each field of a row has at least; a row of so many turns that it has less is not scored."""


def cut_rows(tokenizer: BoundedTokenizer, rows: Sequence[Filled], room: int) -> tuple[list[np.ndarray], list[Kept]]:
    """Returns the ids of each row, int32, at most `room`, and what is kept of its cells.

    Fields are cut in the middle, literals never. The tokens of a row are shared as `shares` says. Raises
    `UnscorableError` for a row whose literals leave no room.
    """
    cut, kept = cut_texts(tokenizer, [(row,) for row in rows], room)
    return [ids for (ids,) in cut], kept


def cut_texts(
    tokenizer: BoundedTokenizer, rows: Sequence[Sequence[Filled]], room: int
) -> tuple[list[list[np.ndarray]], list[Kept]]:
    """Returns the ids of each text of each row, cut as by `cut_rows`; the texts of a row share the room."""
    ellipsis = tokenizer.ids(ELLIPSIS)
    encoded = iter(_encoded(tokenizer, [text for row in rows for text in row], room))
    cut = [_cut([next(encoded) for _ in row], room, ellipsis) for row in rows]
    return [ids for ids, _ in cut], [kept for _, kept in cut]


@dataclass(frozen=True)
class _EncodedText:
    filled: Filled
    ids: np.ndarray
    offsets: np.ndarray
    """int64 [tokens, 2]: the characters at which each token begins and ends."""
    edges: Sequence[tuple[int, int]]
    """The characters at which each field begins and ends, where the middle of huge ones is left out."""
    fields: Sequence[tuple[int, int]]
    """The same in tokens."""

    def characters_kept(self, budgets: Sequence[int], ellipsis: int) -> list[int]:
        """Returns how many characters of each field are kept when it is cut to its budget of tokens."""
        sizes = [len(self.filled.texts[name]) for name in self.filled.template.fields]
        found = zip(sizes, self.edges, self.fields, budgets, strict=True)
        return [self._kept(size, edges, field, budget, ellipsis) for size, edges, field, budget in found]

    def _kept(self, size: int, edges: tuple[int, int], field: tuple[int, int], budget: int, ellipsis: int) -> int:
        (start, end), (first, last) = edges, field
        if last - first <= budget:
            return size
        head, tail = truncation.ends_kept(last - first, budget, ellipsis)
        until = self.offsets[first + head - 1, 1] if head else start
        since = self.offsets[last - tail, 0] if tail else end
        return int(until - start + end - since)


def _encoded(tokenizer: BoundedTokenizer, texts: Sequence[Filled], room: int) -> list[_EncodedText]:
    # Neither end of a field keeps more than half of the room, so the middle of a huge one is not tokenized.
    shortened = [{field: tokenizer.shorten(text, room // 2 + 1) for field, text in row.texts.items()} for row in texts]
    encoded = tokenizer.encode([row.template.render(cells) for row, cells in zip(texts, shortened, strict=True)])
    found = []
    for row, cells, (ids, offsets) in zip(texts, shortened, encoded, strict=True):
        edges = row.template.spans(cells)
        found.append(_EncodedText(row, ids, offsets, edges, token_spans(edges, offsets)))
    return found


def _cut(row: Sequence[_EncodedText], room: int, ellipsis: np.ndarray) -> tuple[list[np.ndarray], Kept]:
    tokens = sum(len(text.ids) for text in row)
    if tokens <= room:
        return [text.ids for text in row], WHOLE
    fields = [span for text in row for span in text.fields]
    names = [name for text in row for name in text.filled.template.fields]
    _check_room(fields, tokens, room)
    budgets = iter(truncation.field_budgets(tokens, fields, room, shares(names)))
    ids, read = list[np.ndarray](), list[int]()
    for text in row:
        given = [next(budgets) for _ in text.fields]
        ids.append(truncation.cut_fields(text.ids, text.fields, given, ellipsis))
        read += text.characters_kept(given, len(ellipsis))
    sizes = [len(text.filled.texts[name]) for text in row for name in text.filled.template.fields]
    return ids, shares_kept(names, sizes, read)


def kept_of_heads(tokenizer: BoundedTokenizer, texts: Sequence[Filled], ids: Sequence[np.ndarray], room: int) -> Kept:
    """Returns what is kept of the cells of a row where the model reads `ids`, the first tokens of each text.

    Fewer tokens than `room` are all there are.
    """
    if sum(map(len, ids)) < room:
        return WHOLE
    names, sizes, read = list[str](), list[int](), list[int]()
    for filled, head in zip(texts, ids, strict=True):
        end = tokenizer.characters(filled.text, head)
        names += filled.template.fields
        for start, stop in filled.template.spans(filled.texts):
            sizes.append(stop - start)
            read.append(min(max(end - start, 0), stop - start))
    return shares_kept(names, sizes, read)


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
