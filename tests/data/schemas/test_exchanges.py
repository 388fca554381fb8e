"""Conversations whose speakers take turns are read the short way, and mean what they do the long way."""

import json
import random
from typing import Any

import pytest

from lmsys_ray.data.schemas.values import alternating_exchanges, exchanges_of
from lmsys_ray.data.turns import BadCellError, chat_messages, json_list

TEXTS = ("", "plain", "é 🦊", 'a "quote"\n\t\\', "\ud800 alone", "\x00\x7f", None, 7, ["part"], {"text": "t"})
ROLES = ("user", "assistant", "system", "gpt", "Human", None, 3)


def _usual(randomly: random.Random) -> list[Any]:
    said = [randomly.choice(TEXTS[:6]) for _ in range(2 * randomly.randrange(4))]
    return [{"role": ("user", "assistant")[n % 2], "content": text, "n": n} for n, text in enumerate(said)]


def _damaged(randomly: random.Random) -> list[Any]:
    messages = _usual(randomly)
    for _ in range(randomly.randrange(3)):
        place = randomly.randrange(len(messages) + 1)
        other = {"role": randomly.choice(ROLES), "content": randomly.choice(TEXTS)}
        messages[place : place + randomly.randrange(2)] = [randomly.choice([other, None, "text", {"role": "user"}])]
    return messages


def test_both_ways_agree() -> None:
    randomly, short = random.Random(5), 0
    for _ in range(3000):
        messages = randomly.choice([_usual, _damaged])(randomly)
        found = alternating_exchanges(messages)
        if found is not None:
            short += bool(messages)
            assert found == exchanges_of(chat_messages(messages))
    assert short > 1000, "most conversations take the short way"


@pytest.mark.parametrize("value", [None, "text", {"role": "user", "content": "x"}, [None, None], ["a", "b"]])
def test_any_other_value_is_left_to_the_long_way(value: object) -> None:
    assert alternating_exchanges(value) is None


def test_an_unusual_conversation_is_left_to_the_long_way() -> None:
    bad = [{"role": "user", "content": "x"}, {"role": "assistant", "content": 3}]
    assert alternating_exchanges(bad) is None
    with pytest.raises(BadCellError):
        chat_messages(bad)


def test_lists_are_written_as_the_encoder_of_json_writes_them() -> None:
    texts = [text for text in TEXTS if text is None or isinstance(text, str)]
    assert json_list(texts) == json.dumps(texts, separators=(",", ":"))
    assert json_list([]) == "[]"
