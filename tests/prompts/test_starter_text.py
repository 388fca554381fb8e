"""Cells as the KerasNLP starter reads them: a Python literal, of which the first turn counts."""

import pytest

from lmsys_ray.data.conversations import TYPED
from lmsys_ray.prompts.starter_text import starter_text


@pytest.mark.parametrize(
    ("cell", "is_response", "text", "blanked"),
    [
        ('["one","two"]', True, "one", False),
        ('[null,"two"]', True, "", False),
        ('["a nullable field"]', True, "a ''able field", False),
        ('["a nullable field"]', False, "a nullable field", False),
        ('["a\\/b"]', True, "a\\/b", False),
        ('["caf\\u00e9"]', True, "caf\u00e9", False),
        ('["\\ud83d\\ude00 hi"]', True, "", True),
        ('["\U0001f600 hi"]', True, "\U0001f600 hi", False),
        ("['it', 'was printed']", False, "it", False),
        (TYPED + '["typed"]', True, "typed", False),
    ],
)
def test_quirks_of_the_starter(cell: str, is_response: bool, text: str, blanked: bool) -> None:
    assert starter_text(cell, is_response) == (text, blanked)


@pytest.mark.parametrize(("cell", "text"), [("plain text", "plain text"), ('[null,"b"]', ""), ("", "")])
def test_what_the_starter_cannot_read_is_read_as_ever(cell: str, text: str) -> None:
    assert starter_text(cell, is_response=False) == (text, False)


def test_plain_text_stays_plain() -> None:
    assert starter_text('["brackets"]', True, "text").text == '["brackets"]'
