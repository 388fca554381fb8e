"""The half of a shared encoder that runs on CPU workers: each response with its prompt becomes token ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lmsys_ray.checkpoints.sources import read_tokenizer
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.encoded import TOKEN_IDS, as_lists, lengths, with_kept
from lmsys_ray.members.shared_encoder.note import check_note
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from lmsys_ray.prompts.cell_text import cell_turns
from lmsys_ray.prompts.kept import Kept, kept_of_both
from lmsys_ray.prompts.rows import LEAST_FIELD_TOKENS, cut_rows, kept_of_heads, literal_tokens
from lmsys_ray.prompts.special_tokens import cells_as_text, check_not_doubled, reads_cells_as_text, row_ends
from lmsys_ray.prompts.starter_text import starter_text
from lmsys_ray.prompts.template import Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer
from lmsys_ray.prompts.turns import JOINED_BY

ENCODED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("input_ids_a", TOKEN_IDS, nullable=False),
        pa.field("input_ids_b", TOKEN_IDS, nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("blanked", pa.int8(), nullable=False),
    ]
)
"""What the scorer receives: the ids of the prompt with either response, without padding; the tokens of both; and 1
where the preset blanked a text that is not valid UTF-8."""


class SharedEncoderEncoder:
    """Renders and tokenizes each prompt with one response, and with the other, each cut to `max_length` tokens.

    `cells` is the form of the raw cells. Unless `noted`, it may
    differ from what is noted beside the model, as in a training that begins from it. Raises
    `UsageError` for a template, a tokenizer or a note that cannot be used.
    """

    def __init__(self, settings: SharedEncoderSettings, cells: CellForm = "auto", noted: bool = True) -> None:
        if noted:
            check_note(settings)
        self.settings = settings
        self.cells = cells
        self.template = Template.of_one_response(settings.template)
        read = read_tokenizer(settings.model, append_eos=settings.append_eos)
        self.tokenizer = BoundedTokenizer(read.tokenizer)
        self.before, self.after = row_ends(read, settings)
        check_not_doubled(read.tokenizer, [self.template], self.before, self.after)
        if reads_cells_as_text(read, settings, auto="text"):
            (self.template,) = cells_as_text(self.tokenizer, [self.template])
        self.room = settings.max_length - len(self.before) - len(self.after)
        if settings.truncation == "balanced":
            self._check_room()

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one with those of `ENCODED`, row by row."""
        prompts, *responses = ([self._text(name, cell) for cell in conversations[name].to_pylist()] for name in CELLS)
        a, b = (
            [Filled(self.template, {"prompt": p[0], "response": r[0]}) for p, r in zip(prompts, side, strict=True)]
            for side in responses
        )
        # A text that occurs twice, as with both orders of a row, is tokenized once.
        distinct = {filled.text: filled for filled in (*a, *b)}
        found, shares = self._tokenized([*distinct.values()])
        ids, kept = dict(zip(distinct, found, strict=True)), dict(zip(distinct, shares, strict=True))
        of_a, of_b = ([ids[filled.text] for filled in side] for side in (a, b))
        blanked = np.array([[text[1] for text in side] for side in (prompts, *responses)], bool).any(axis=0)
        columns = [conversations["row"].combine_chunks(), as_lists(of_a), as_lists(of_b)]
        columns += [pa.array(lengths(of_a) + lengths(of_b)), pa.array(blanked.astype(np.int8))]
        both = [kept_of_both(kept[with_a.text], kept[with_b.text]) for with_a, with_b in zip(a, b, strict=True)]
        return with_kept(pa.Table.from_arrays(columns, schema=ENCODED), both)

    def _text(self, column: str, cell: str) -> tuple[str, bool]:
        """Returns the text of a cell, and whether it was blanked."""
        if self.settings.preset:
            return starter_text(cell, column != CELLS[0], self.cells)
        return JOINED_BY.join(cell_turns(cell, "json", self.cells, self.settings.turns)), False

    def _tokenized(self, rows: list[Filled]) -> tuple[list[np.ndarray], list[Kept]]:
        if self.settings.truncation == "balanced":
            found, kept = cut_rows(self.tokenizer, rows, self.room)
        else:
            found = self.tokenizer.first_tokens([row.text for row in rows], self.room)
            kept = [
                kept_of_heads(self.tokenizer, [row], [ids], self.room) for row, ids in zip(rows, found, strict=True)
            ]
        return [np.concatenate([self.before, ids, self.after]) for ids in found], kept

    def _check_room(self) -> None:
        literals = literal_tokens(self.tokenizer, self.template)
        least = self.settings.max_length - self.room + literals + LEAST_FIELD_TOKENS * len(self.template.fields)
        if self.settings.max_length < least:
            raise UsageError(
                f"max_length: {self.settings.max_length} leaves too little beside the template's {literals} tokens; "
                f"give at least {least}"
            )
