"""Where the two sides of a conversation part."""

import pytest

from lmsys_ray.ensemble.exports.pairs import APART, SAME, Sides, as_messages, split, transcript


@pytest.mark.parametrize(
    ("prompt", "a", "b", "expected"),
    [
        (["p"], ["a"], ["b"], Sides([], "p", ["a"], ["b"])),
        (["p", "q"], ["s", "a"], ["s", "b"], Sides([("p", "s")], "q", ["a"], ["b"])),
        (["p", "q"], ["a", "s"], ["b", "s"], Sides([], "p", ["a", "q", "s"], ["b", "q", "s"])),
        (["p", "q"], ["", "a"], ["", "b"], Sides([("p", "")], "q", ["a"], ["b"])),
        (["system", "p"], ["a"], ["b"], Sides([], "system\n\np", ["a"], ["b"])),
        ([], [], ["b"], Sides([], "", [""], ["b"])),
        (["p"], ["s"], ["s"], SAME),
        (["p", "q"], ["a"], ["a", "b"], APART),
    ],
)
def test_sides(prompt: list[str], a: list[str], b: list[str], expected: Sides | str) -> None:
    assert split(prompt, a, b) == expected


def test_a_transcript_names_who_speaks() -> None:
    said = as_messages(["p", "a", "q"], "user")
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert transcript(said) == "\n\nHuman: p\n\nAssistant: a\n\nHuman: q"
