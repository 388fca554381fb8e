"""The pair of texts that encoders such as DeBERTa read, such as a prompt and a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmsys_ray.checkpoints.settings import TokenizerSettings
from lmsys_ray.checkpoints.sources import read_tokenizer
from lmsys_ray.checkpoints.tokenizer_files import LoadedTokenizer
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.kept import Kept
from lmsys_ray.prompts.rows import LEAST_FIELD_TOKENS, cut_texts
from lmsys_ray.prompts.special_tokens import TokenNames, appended_eos, reads_cells_as_text
from lmsys_ray.prompts.template import ONE_RESPONSE, Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer

_NO_PAIR = (
    "input: the tokenizer ({}) does not join two texts, a token of its own between them; "
    "set input to chat, or restore the post_processor of its tokenizer.json"
)

_ALONE = {cell: Template(("", ""), (cell,)) for cell in ONE_RESPONSE}


@dataclass(frozen=True)
class Joint:
    """The ids that a tokenizer's own post-processing puts before, between and after two texts, int32."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    has_types: bool
    """Whether the tokens of the second text, and those after it, have type 1."""

    @classmethod
    def of(
        cls, read: LoadedTokenizer, settings: TokenizerSettings, append_ids: Sequence[int] = (), refusal: str = ""
    ) -> Joint:
        """Returns what a tokenizer adds, with its EOS at the end where the settings append it, and `append_ids`.

        Raises `UsageError` where it joins two texts in another way: `refusal`, with the tokenizer's place as `{}`.
        """
        joint = cls._found(read, refusal)
        eos, after = appended_eos(read, settings), joint.after
        if eos is not None and eos not in after:
            after = np.append(after, np.int32(eos))
        return cls(
            joint.before, joint.between, np.concatenate([after, np.array(append_ids, np.int32)]), joint.has_types
        )

    @classmethod
    def _found(cls, read: LoadedTokenizer, refusal: str) -> Joint:
        pair = read.tokenizer.encode("a", "a", add_special_tokens=True)
        texts, ids = pair.sequence_ids, np.array(pair.ids, np.int32)
        first, second = ([i for i, text in enumerate(texts) if text == number] for number in (0, 1))
        in_order = bool(first) and bool(second) and first[-1] < second[0] - 1
        types = [0] * len(ids) if not in_order else [0] * second[0] + [1] * (len(ids) - second[0])
        if not in_order or (any(pair.type_ids) and pair.type_ids != types):
            raise UsageError(refusal.format(read.place))
        return cls(ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :], any(pair.type_ids))

    @property
    def tokens(self) -> int:
        """How many ids it adds."""
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, int]:
        """Returns the ids of both texts joined, and where the tokens of type 1 begin; 0: there are none."""
        begins = len(self.before) + len(first) + len(self.between)
        ids = np.concatenate([self.before, first, self.between, second, self.after])
        return ids, begins if self.has_types else 0


class PairRows:
    """Tokenizes pairs as the tokenizer's own post-processing joins them, each cut to `max_length` tokens.

    Where a pair is too long, each text is cut in its middle, a third of the tokens for the first, the rest for the
    second; a short text leaves its share to the other. Raises `UsageError` for a tokenizer or a length that cannot be
    used.
    """

    def __init__(self, settings: TokenizerSettings, max_length: int, append_ids: Sequence[int] = ()) -> None:
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        self.joint = Joint.of(read, settings, append_ids, _NO_PAIR)
        self.tokenizer = BoundedTokenizer(read.tokenizer)
        if reads_cells_as_text(read, settings, auto="text"):
            TokenNames(self.tokenizer)
        own = self.joint.tokens
        self.room = max_length - own
        if self.room < 2 * LEAST_FIELD_TOKENS:
            raise UsageError(
                f"max_length: {max_length} leaves too little beside the {own} special tokens of a pair; "
                f"give at least {own + 2 * LEAST_FIELD_TOKENS}"
            )

    def encode(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[np.ndarray], np.ndarray, list[Kept]]:
        """Returns the ids of each prompt with its response, int32, where those of type 1 begin, and what is kept.

        The second, int64 [rows], is 0 for a tokenizer that gives both texts the same type.
        """
        filled = [
            [Filled(_ALONE[cell], {cell: text}) for cell, text in zip(_ALONE, pair, strict=True)] for pair in pairs
        ]
        cut, kept = cut_texts(self.tokenizer, filled, self.room)
        joined = [self.joint.join(first, second) for first, second in cut]
        return [ids for ids, _ in joined], np.array([begins for _, begins in joined], np.int64), kept
