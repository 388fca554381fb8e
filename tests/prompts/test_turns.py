"""Turns of a conversation: which are read, which answers which, and how a template shows them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.checkpoints.as_trained import check_as_trained
from lmsys_ray.errors import UnscorableError, UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.registry import kind_named
from lmsys_ray.members.reward.settings import RewardSettings
from lmsys_ray.prompts.template import Template
from lmsys_ray.prompts.turns import exchanges
from tests.members.classifier.test_encoder import conversations

TURNS = st.lists(st.text("abc ", max_size=4), max_size=5)


@given(TURNS, TURNS)
def test_every_text_is_read_and_a_response_ends_the_conversation(prompt: list[str], response: list[str]) -> None:
    found = exchanges(prompt, response)
    assert len(found) == max(1, min(len(prompt), len(response)))
    for side, turns in enumerate((prompt, response)):
        texts = [pair[side] for pair in found]
        assert "\n\n".join(texts) == "\n\n".join(turns)
        assert texts[1:] == turns[len(turns) - len(texts) + 1 :]


def test_what_one_side_has_more_belongs_to_the_first_exchange() -> None:
    assert exchanges(["p", "q"], ["a"]) == [("p\n\nq", "a")]
    assert exchanges(["system", "p", "q"], ["a", "b"]) == [("system\n\np", "a"), ("q", "b")]
    assert exchanges(["p", "q"], ["greeting", "a", "b"]) == [("p", "greeting\n\na"), ("q", "b")]
    assert exchanges(["p", "q"], ["a", ""]) == [("p", "a"), ("q", "")]
    assert exchanges([], []) == [("", "")]


TWO = ('["p1","p2"]', '["a1","a2"]', '["b1"]')


def text(model: str, **changes: object) -> str:
    made = ClassifierEncoder(ClassifierSettings(kind="classifier", model=model, **changes))
    row = made.encode(conversations(TWO))["input_ids"][0].as_py()
    return made.tokenizer.tokenizer.decode(row)


@pytest.mark.parametrize("truncation", ["right", "balanced"])
def test_a_classifier_reads_the_turns_that_are_chosen(model: str, truncation: str) -> None:
    shown = {
        choice: text(model, turns=choice, truncation=truncation, template="P {prompt} A {response_a} B {response_b}.")
        for choice in ("all", "first", "last")
    }
    assert shown == {"all": "P p1\n\np2 A a1\n\na2 B b1.", "first": "P p1 A a1 B b1.", "last": "P p2 A a2 B b1."}


@pytest.mark.parametrize("truncation", ["right", "balanced"])
def test_a_template_may_show_whole_conversations(model: str, truncation: str) -> None:
    shown = text(model, template="A:\n{conversation_a}\n\nB:\n{conversation_b}\n\nWhich?", truncation=truncation)
    assert shown == (
        "A:\nUser: p1\n\nAssistant: a1\n\nUser: p2\n\nAssistant: a2\n\nB:\nUser: p1\n\np2\n\nAssistant: b1\n\nWhich?"
    )
    mixed = text(model, template="{prompt} | {conversation_a} | {response_b}", turns="last", truncation=truncation)
    assert mixed == "p2 | User: p2\n\nAssistant: a2 | b1"


@given(st.fixed_dictionaries(dict.fromkeys(("prompt", "response_a", "response_b"), TURNS)))
def test_spans_of_conversations_say_where_the_turns_lie(turns: dict[str, list[str]]) -> None:
    filled = Template.parse("{conversation_b} {prompt} {conversation_a}").filled(turns)
    found = [filled.text[start:end] for start, end in filled.template.spans(filled.texts)]
    expected = [text for pair in exchanges(turns["prompt"], turns["response_b"]) for text in pair]
    expected += ["\n\n".join(turns["prompt"])]
    expected += [text for pair in exchanges(turns["prompt"], turns["response_a"]) for text in pair]
    assert found == expected
    assert len(set(filled.template.fields)) == len(filled.template.fields)


def test_conversations_that_are_too_long_are_cut_in_their_turns(model: str) -> None:
    template = "{conversation_a}\n--\n{conversation_b}\nWhich?"
    made = ClassifierEncoder(
        ClassifierSettings(kind="classifier", model=model, template=template, truncation="balanced", max_length=500)
    )
    cells = [json.dumps([f"{side}{turn} " + "word " * 200 + f"end{turn}" for turn in (1, 2)]) for side in "pab"]
    row = made.encode(conversations(tuple(cells)))["input_ids"][0].as_py()
    shown = made.tokenizer.tokenizer.decode(row)
    assert len(row) == 500
    assert shown.count("User: p1") == shown.count("User: p2") == 2
    assert [f"Assistant: {turn}" in shown for turn in ("a1", "a2", "b1", "b2")] == [True] * 4
    assert shown.count("end1") == shown.count("end2") == 4
    assert shown.endswith("\nWhich?")
    sizes = [len(made.tokenizer.ids(part)) for part in shown.split("User: ")[1].split("\n\nAssistant: ")]
    assert abs(sizes[1] - 4 * sizes[0]) <= 8, "a prompt that is shown twice has half of its 20 % each time"
    many = json.dumps(["a turn of some words"] * 60)
    with pytest.raises(
        UnscorableError, match=r"the row has 240 texts and needs \d+ tokens beside them, which leaves too"
    ):
        made.encode(conversations((many, many, many)))


def test_notebook_text_has_no_turns(model: str) -> None:
    for changes, sentence in (
        ({"turns": "last"}, "turns: last needs text = json, since text = notebook does not tell turns apart"),
        ({"template": "{conversation_a} {conversation_b} ?"}, "template: a whole conversation needs text = json"),
    ):
        with pytest.raises(UsageError, match=sentence):
            ClassifierEncoder(ClassifierSettings(kind="classifier", model=model, text="notebook", **changes))
    given = ClassifierSettings(kind="classifier", model=model, text="notebook", turns="first")
    with pytest.raises(UsageError, match=r"^members\.llama: turns: first needs text = json"):
        kind_named("classifier").preflight(given, "members.llama")


def test_an_adapter_reads_the_turns_of_its_training(model: str) -> None:
    older = {"template": "notebook", "text": "json"}
    member = ClassifierSettings(kind="classifier", model=model, adapter="a", turns="last")
    with pytest.raises(
        UsageError, match="trained with turns = 'all', this member has 'last'; set turns as in training"
    ):
        check_as_trained(older, member)
    check_as_trained({**older, "turns": "last"}, member)
    check_as_trained({}, member)
    check_as_trained(older, member.model_copy(update={"turns": "all"}))


def test_an_adapter_of_a_classifier_is_none_of_another_kind(tmp_path: Path, model: str) -> None:
    (tmp_path / "scoring.json").write_text(json.dumps({"layers": None, "text": "json", "template": "labelled"}))
    given = RewardSettings(kind="reward", model=model, adapter=str(tmp_path))
    with pytest.raises(
        UsageError, match=r"is a classifier's, trained with text = 'json', which no member of this kind has"
    ):
        kind_named("reward").preflight(given, "members.judge")
