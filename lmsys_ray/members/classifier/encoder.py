"""The half of the classifier that runs on CPU workers: conversations become token ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lmsys_ray.checkpoints.sources import read_tokenizer
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.encoded import ENCODED, encoded_rows, with_kept
from lmsys_ray.prompts.cell_text import cell_turns, check_turns
from lmsys_ray.prompts.kept import Kept
from lmsys_ray.prompts.pairs import Joint
from lmsys_ray.prompts.rows import LEAST_FIELD_TOKENS, cut_texts, kept_of_heads, literal_tokens
from lmsys_ray.prompts.special_tokens import cells_as_text, check_not_doubled, reads_cells_as_text, row_ends
from lmsys_ray.prompts.template import Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer
from lmsys_ray.prompts.truncation import longest_first

__all__ = ["ENCODED", "ClassifierEncoder"]

_NO_PAIR = (
    "template: two texts are for encoders such as DeBERTa, and the tokenizer ({}) does not join two texts, a token of "
    "its own between them; give one text"
)


class ClassifierEncoder:
    """Renders and tokenizes conversations, each cut to `max_length` tokens.

    The whole row is tokenized at once, with the tokenizer's special tokens, as in the reference notebook; a pair of
    texts is joined as the tokenizer joins `text` and `text_pair`. `cells` is the form of the raw cells (see
    `lmsys_ray.data.conversations.decode_cell`); one that does not decode raises `BadCellError`, which ingest rules out.
    Raises `UsageError` for a template or a tokenizer that cannot be used.
    """

    def __init__(self, settings: ClassifierSettings, cells: CellForm = "auto") -> None:
        self.settings = settings
        self.cells = cells
        self.templates = self._parsed()
        check_turns(settings.text, settings.turns, any(template.has_conversations for template in self.templates))
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        self.tokenizer = BoundedTokenizer(read.tokenizer)
        self.joint = Joint.of(read, settings, refusal=_NO_PAIR) if len(self.templates) == 2 else None
        self.before, self.after = row_ends(read, settings)
        own = len(self.before) + len(self.after)
        if self.joint:
            self.before, self.after, own = self.joint.before, self.joint.after, self.joint.tokens
        check_not_doubled(read.tokenizer, self.templates, self.before, self.after)
        if reads_cells_as_text(read, settings):
            self.templates = cells_as_text(self.tokenizer, self.templates)
        self.room = settings.max_length - own
        if settings.truncation == "balanced":
            self._check_room()

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one with those of `ENCODED`, row by row.

        Pairs of texts have those of `ENCODED_PAIRS`.
        """
        columns = [conversations[cell].to_pylist() for cell in CELLS]
        filled = [self.filled(dict(zip(CELLS, cells, strict=True))) for cells in zip(*columns, strict=True)]
        balanced = self.settings.truncation == "balanced"
        rows, kept = cut_texts(self.tokenizer, filled, self.room) if balanced else self._right(filled)
        return with_kept(self._joined(conversations["row"], rows), kept)

    def _joined(self, row: pa.ChunkedArray, rows: Sequence[Sequence[np.ndarray]]) -> pa.Table:
        if self.joint is None:
            return encoded_rows(row, [np.concatenate([self.before, ids, self.after]) for (ids,) in rows])
        joined = [self.joint.join(first, second) for first, second in rows]
        return encoded_rows(row, [ids for ids, _ in joined], np.array([begins for _, begins in joined], np.int64))

    def filled(self, cells: dict[str, str]) -> list[Filled]:
        """Returns the templates with the texts of a row, by cell: one, or those of a pair."""
        settings = self.settings
        turns = {name: cell_turns(cell, settings.text, self.cells, settings.turns) for name, cell in cells.items()}
        return [template.filled(turns) for template in self.templates]

    def _parsed(self) -> list[Template]:
        given = self.settings.template
        return [Template.parse(given)] if isinstance(given, str) else [*Template.parse_pair(given)]

    def _right(self, rows: Sequence[Sequence[Filled]]) -> tuple[list[list[np.ndarray]], list[Kept]]:
        texts = [
            self.tokenizer.first_tokens([text.text for text in each], self.room) for each in zip(*rows, strict=True)
        ]
        found = [list(row) for row in zip(*texts, strict=True)]
        if self.joint is not None:
            # Texts that exceed the room alone count as equally long, so that huge ones are not read to their ends.
            lengths = [longest_first(len(first), len(second), self.room) for first, second in found]
            found = [[ids[:n] for ids, n in zip(*each, strict=True)] for each in zip(found, lengths, strict=True)]
        return found, [
            kept_of_heads(self.tokenizer, texts, ids, self.room) for texts, ids in zip(rows, found, strict=True)
        ]

    def _check_room(self) -> None:
        templates = [template.filled({cell: [""] for cell in CELLS}).template for template in self.templates]
        literals = literal_tokens(self.tokenizer, *templates)
        fields = sum(len(template.fields) for template in templates)
        least = self.settings.max_length - self.room + literals + LEAST_FIELD_TOKENS * fields
        if self.settings.max_length < least:
            raise UsageError(
                f"max_length: {self.settings.max_length} leaves too little beside the template's {literals} tokens; "
                f"give at least {least}"
            )
