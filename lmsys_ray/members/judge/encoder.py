"""The half of a judge that runs on CPU workers: the question about each row becomes token ids."""

from typing import Any

import pyarrow as pa

from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.members.encoded import encoded_rows, with_kept
from lmsys_ray.members.judge.settings import JudgeSettings
from lmsys_ray.prompts.cell_text import cell_turns
from lmsys_ray.prompts.chat_rows import ChatRows
from lmsys_ray.prompts.judging import judged, judging_template, verdict_tokens


class JudgeEncoder:
    """Asks about each row in the words of the setting `prompt`, and tokenizes that up to the verdict.

    `cells` is the form of the raw cells. Raises `UsageError` for a prompt, a verdict, a chat template or a tokenizer
    that cannot be used.
    """

    def __init__(self, settings: JudgeSettings, cells: CellForm = "auto") -> None:
        self.settings = settings
        self.cells = cells
        self.template = judging_template(settings.prompt, settings.verdicts)
        sample = judged(self.template.filled({cell: ["a"] for cell in CELLS}))
        self.rows = ChatRows(settings, sample, add_generation_prompt=True, prefix=settings.prefix)
        context = self.rows.context([message.plain for message in sample])
        self.verdict_ids, self.rows.spaces_taken = verdict_tokens(self.rows, context, settings.verdicts)
        """The ids of the tokens that count for a, b and tie; none for a tie where the settings have no such verdict."""

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        return self.rows.notes

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of how rows are read."""
        return {**self.rows.facts, "verdict_ids": self.verdict_ids}

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one with those of `ENCODED`, row by row.

        Raises `UnscorableError` for rows that the chat template cannot write.
        """
        columns = [conversations[cell].to_pylist() for cell in CELLS]
        messages = [
            judged(self.template.filled({name: self._turns(cell) for name, cell in zip(CELLS, cells, strict=True)}))
            for cells in zip(*columns, strict=True)
        ]
        ids, kept = self.rows.encode(messages)
        return with_kept(encoded_rows(conversations["row"], ids), kept)

    def _turns(self, cell: str) -> list[str]:
        return cell_turns(cell, "json", self.cells, self.settings.turns)


def verdict_ids(settings: JudgeSettings) -> dict[str, list[int]]:
    """Returns the ids of the tokens that count for a, b and tie; raises `UsageError` as `JudgeEncoder` does."""
    return JudgeEncoder(settings).verdict_ids
