"""The half of a reward model that runs on CPU workers: each response with its prompt becomes token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.checkpoints.sources import TOKENIZER_FILES, model_directory
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.members.encoded import TOKEN_IDS, as_lists, lengths, with_kept
from lmsys_ray.members.reward.settings import RewardSettings
from lmsys_ray.prompts.cell_text import cell_turns
from lmsys_ray.prompts.chat_rows import ChatRows, conversation
from lmsys_ray.prompts.kept import Kept, kept_of_both
from lmsys_ray.prompts.pairs import PairRows
from lmsys_ray.prompts.turns import JOINED_BY

ENCODED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("input_ids_a", TOKEN_IDS, nullable=False),
        pa.field("input_ids_b", TOKEN_IDS, nullable=False),
        pa.field("second_a", pa.int64(), nullable=False),
        pa.field("second_b", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""What the scorer receives: the ids of the prompt with either response, without padding; where in each the tokens of
type 1 begin, which are those of the second text of a pair (0: there are none); and the tokens of both."""

_ENCODERS = {
    *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert"),
    *("electra", "ernie", "eurobert", "flaubert", "fnet", "funnel", "gte", "ibert", "longformer", "luke"),
    *("megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer", "rembert", "roberta"),
    *("roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "xlm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    "yoso",
}
"""The values of model_type in config.json of architectures that see a text in both directions."""


def reads_pairs(settings: RewardSettings) -> bool:
    """Returns whether a model reads prompt and response as a pair of texts, not as a chat."""
    if settings.input != "auto":
        return settings.input == "pair"
    file = model_directory(settings.model, TOKENIZER_FILES) / "config.json"
    what = f"model: config.json of {settings.model}"
    return file.is_file() and read_mapping(file, what, "fetch it again").get("model_type") in _ENCODERS


class RewardEncoder:
    """Tokenizes each prompt with one response, and with the other, each cut to `max_length` tokens.

    `append_ids` end each sequence, as the models want it that score at a token of their own. `cells` is the form of the
    raw cells. Raises `UsageError` for a chat template or a tokenizer that cannot be used.
    """

    def __init__(self, settings: RewardSettings, cells: CellForm = "auto", append_ids: Sequence[int] = ()) -> None:
        self.settings = settings
        self.cells = cells
        self._chat = self._pairs = None
        if reads_pairs(settings):
            self._pairs = PairRows(settings, settings.max_length, append_ids)
        else:
            sample = conversation(["Why?"], ["Because."])
            self._chat = ChatRows(settings, sample, settings.add_generation_prompt, append_ids=append_ids)

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        return self._chat.notes if self._chat else []

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of how rows are read."""
        return {"input": "chat", **self._chat.facts} if self._chat else {"input": "pair"}

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one with those of `ENCODED`, row by row.

        Raises `UnscorableError` for rows that the chat template cannot write.
        """
        prompts, *responses = ([self._turns(cell) for cell in conversations[name].to_pylist()] for name in CELLS)
        (a, second_a, kept_a), (b, second_b, kept_b) = (self._sequences(prompts, side) for side in responses)
        row, tokens = conversations["row"].combine_chunks(), lengths(a) + lengths(b)
        columns = [row, as_lists(a), as_lists(b), *map(pa.array, (second_a, second_b, tokens))]
        return with_kept(pa.Table.from_arrays(columns, schema=ENCODED), [*map(kept_of_both, kept_a, kept_b)])

    def _turns(self, cell: str) -> list[str]:
        return cell_turns(cell, "json", self.cells, self.settings.turns)

    def _sequences(
        self, prompts: Sequence[list[str]], responses: Sequence[list[str]]
    ) -> tuple[list[np.ndarray], np.ndarray, list[Kept]]:
        """Returns the ids of each prompt with its response, where those of type 1 begin, and what is kept."""
        turns = list(zip(prompts, responses, strict=True))
        if self._pairs:
            return self._pairs.encode([(JOINED_BY.join(asked), JOINED_BY.join(told)) for asked, told in turns])
        assert self._chat
        ids, kept = self._chat.encode([conversation(asked, told) for asked, told in turns])
        return ids, np.zeros(len(ids), np.int64), kept
