"""The half of the Llama member that runs on CPU workers: conversations become token ids."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lmsys_ray.config import LlamaSettings
from lmsys_ray.conversations import CELLS, CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import truncation
from lmsys_ray.members.llama.sources import read_tokenizer
from lmsys_ray.members.llama.special_tokens import cells_as_text, check_not_doubled, reads_cells_as_text, row_ends
from lmsys_ray.members.llama.template import Template
from lmsys_ray.members.llama.text import cell_text
from lmsys_ray.members.llama.tokenizer import BoundedTokenizer

ELLIPSIS = " …"

ENCODED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("input_ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""What the scorer receives: token ids with special tokens and without padding."""

_LEAST_FIELD_TOKENS = 8


class LlamaEncoder:
    """Renders and tokenizes conversations, each cut to `max_length` tokens.

    The whole row is tokenized at once, with the tokenizer's special tokens, as the reference notebook does. `cells`
    says what the raw cells hold (see `lmsys_ray.conversations.decode_cell`); a cell that does not decode raises
    `BadCellError`, which ingestion rules out.

    Raises `UsageError` for a template or a tokenizer that cannot be used.
    """

    def __init__(self, settings: LlamaSettings, cells: CellForm = "auto") -> None:
        self.settings = settings
        self.cells = cells
        self.template = Template.parse(settings.template)
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        self.tokenizer = BoundedTokenizer(read.tokenizer)
        self.before, self.after = row_ends(read, settings)
        check_not_doubled(read.tokenizer, self.template, self.before, self.after)
        if reads_cells_as_text(read, settings):
            self.template = cells_as_text(self.tokenizer, self.template)
        self.room = settings.max_length - len(self.before) - len(self.after)
        self.ellipsis = self.tokenizer.ids(ELLIPSIS)
        if settings.truncation == "balanced":
            self._check_room()

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one with those of `ENCODED`, row by row."""
        columns = [conversations[cell].to_pylist() for cell in CELLS]
        texts = [self.texts(dict(zip(CELLS, cells, strict=True))) for cells in zip(*columns, strict=True)]
        rows = self._balanced(texts) if self.settings.truncation == "balanced" else self._right(texts)
        ids = [np.concatenate([self.before, row, self.after]) for row in rows]
        tokens = np.array([len(row) for row in ids], np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens)])
        flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
        input_ids = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.int32()))
        row = conversations["row"].combine_chunks()
        return pa.Table.from_arrays([row, input_ids, pa.array(tokens)], schema=ENCODED)

    def texts(self, cells: dict[str, str]) -> dict[str, str]:
        """Returns the text of each cell, by field."""
        return {field: cell_text(cell, self.settings.text, self.cells) for field, cell in cells.items()}

    def _right(self, texts: Sequence[dict[str, str]]) -> list[np.ndarray]:
        return self.tokenizer.first_tokens([self.template.render(fields) for fields in texts], self.room)

    def _balanced(self, texts: Sequence[dict[str, str]]) -> list[np.ndarray]:
        # No end of a field keeps more than half of the room, so the middle of a huge one need not be tokenized.
        shortened = [
            {field: self.tokenizer.shorten(text, self.room // 2 + 1) for field, text in fields.items()}
            for fields in texts
        ]
        encoded = self.tokenizer.encode([self.template.render(fields) for fields in shortened])
        return [
            truncation.balanced(ids, self._token_spans(fields, offsets), self.room, self.ellipsis, self._shares())
            for fields, (ids, offsets) in zip(shortened, encoded, strict=True)
        ]

    def _token_spans(self, texts: dict[str, str], offsets: np.ndarray) -> list[tuple[int, int]]:
        """Returns which tokens lie wholly in each field; one that straddles a field's edge counts as the template's."""
        spans = []
        for start, end in self.template.spans(texts):
            first = int(np.searchsorted(offsets[:, 0], start, side="left"))
            spans.append((first, max(first, int(np.searchsorted(offsets[:, 1], end, side="right")))))
        return spans

    def _shares(self) -> list[int]:
        return [truncation.SHARES[field] for field in self.template.fields]

    def _check_room(self) -> None:
        literals = sum(len(self.tokenizer.ids(literal)) for literal in self.template.literals if literal)
        least = self.settings.max_length - self.room + literals + _LEAST_FIELD_TOKENS * len(self.template.fields)
        if self.settings.max_length < least:
            raise UsageError(
                f"max_length: {self.settings.max_length} leaves too little beside the template's {literals} tokens; "
                f"give at least {least}"
            )
