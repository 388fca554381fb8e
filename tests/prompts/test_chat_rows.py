"""Messages get the ids that transformers gives them; cells cannot end a turn; what is too long is cut in its texts."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.errors import UnscorableError, UsageError
from lmsys_ray.members.reward.settings import RewardSettings
from lmsys_ray.prompts.chat_rows import ChatRows, conversation
from tests.checkpoints.test_tokenizer_files import llama_2
from tests.members.classifier.test_encoder import PIECES
from tests.prompts.chat_models import DATED, FAMILIES, Reference, write_model

SPECIAL = sorted({token for family in FAMILIES.values() for token in (*family.special, *family.plain)})
WORDS = [*PIECES, "user\n", "assistant\n", "model\n", "<tool_response>", "</tool_response>", "[INST", "<|im_"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join) | st.text(max_size=30)
TYPED = st.lists(st.sampled_from([*WORDS, *SPECIAL]), max_size=10).map("".join)
THOUGHT = st.tuples(TEXTS, TEXTS, TEXTS).map(lambda parts: f"{parts[0]}<think>{parts[1]}</think>{parts[2]}")
SAMPLE = conversation(["a"], ["b"])


def turns(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("chat") / family, FAMILIES[family])


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference(model)


LENGTHS = (150, 200)


@pytest.fixture(scope="module")
def short_readers(model: Path) -> dict[int, ChatRows]:
    return {length: rows(model, max_length=length) for length in LENGTHS}


@pytest.fixture(scope="module")
def readers(model: Path) -> dict[tuple[str, bool], ChatRows]:
    return {
        (mode, generate): rows(model, generate, special_tokens=mode)
        for mode in ("text", "parse")
        for generate in (True, False)
    }


def rows(model: Path, generate: bool = False, append_ids: Sequence[int] = (), **changes: object) -> ChatRows:
    given = RewardSettings(kind="reward", model=str(model), **changes)
    return ChatRows(given, SAMPLE, generate, append_ids=append_ids)


def plain(exchanges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [message for asked, told in exchanges for message in (("user", asked), ("assistant", told))]


def ids(reader: ChatRows, exchanges: Sequence[tuple[str, str]]) -> list[int]:
    ([row], _) = reader.encode([conversation(*zip(*exchanges, strict=True))])
    return row.tolist()


@settings(max_examples=60)
@given(turns(TEXTS | THOUGHT), st.booleans(), st.sampled_from(["text", "parse"]))
def test_ids_are_those_of_transformers(
    readers: dict, reference: Reference, exchanges: list[tuple[str, str]], generate: bool, mode: str
) -> None:
    if mode == "text" and any(
        token in text for pair in exchanges for text in pair for token in ("<think>", "</think>")
    ):
        return
    assert ids(readers[mode, generate], exchanges) == reference.ids(plain(exchanges), generate)


@settings(max_examples=60)
@given(turns(TYPED), st.booleans())
def test_special_tokens_in_cells_are_parsed_where_that_is_said(
    readers: dict, reference: Reference, exchanges: list[tuple[str, str]], generate: bool
) -> None:
    assert ids(readers["parse", generate], exchanges) == reference.ids(plain(exchanges), generate)


@settings(max_examples=80)
@given(turns(TYPED))
def test_no_cell_can_end_a_turn(
    readers: dict, reference: Reference, family: str, exchanges: list[tuple[str, str]]
) -> None:
    """The text of the row is transformers', and its special ids are those of the same template around other texts."""
    row = ids(readers["text", False], exchanges)
    whole = reference.text(plain(exchanges))
    assert reference.tokenizer.decode(row, skip_special_tokens=False) == whole
    control = [reference.tokenizer.convert_tokens_to_ids(token) for token in FAMILIES[family].special]
    harmless = [(asked and "x", told and "y") for asked, told in exchanges]
    expected = reference.ids(plain(harmless))
    assert [token for token in row if token in control] == [token for token in expected if token in control]
    if family == "qwen3" and not any("</think>" in told for _, told in exchanges):
        thoughts = reference.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
        assert [token for token in row if token in thoughts] == thoughts


def test_thoughts_of_a_response_are_read_as_the_template_has_them(tmp_path: Path) -> None:
    model = write_model(tmp_path / "qwen3", FAMILIES["qwen3"])
    exchanges = [("p", "<think>\none\n</think>\n\nyes"), ("why?", "<think>two, " + "three, " * 30 + "</think>because")]
    expected = Reference(model).ids(plain(exchanges))
    assert ids(rows(model), exchanges) == expected
    cut = ids(rows(model, max_length=100), exchanges)
    text = Reference(model).tokenizer.decode(cut)
    assert len(cut) == 100
    assert text.endswith("</think>\n\nbecause<|im_end|>\n")
    assert "assistant\nyes<|im_end|>" in text
    assert "<think>\ntwo, three," in text


def test_a_text_that_the_template_rewrites_is_scored_where_it_can_be(tmp_path: Path) -> None:
    family = FAMILIES["qwen2"]
    shouting = family.template.replace("message.content + '<|im_end|>'", "message.content|upper + '<|im_end|>'")
    shouting = shouting.replace("<|im_start|>' + message.role", "<|im_start|>' + message.role|lower")
    model = write_model(tmp_path / "model", family, chat_template=shouting + "{# why? because. #}")
    with pytest.raises(
        UsageError, match=r"chat_template: the chat template of the model .* rewrites the text of the prompt"
    ):
        rows(model)
    quiet = shouting.replace(
        "message.content|upper", "(message.content|upper if 'loud' in message.content else message.content)"
    )
    model = write_model(tmp_path / "quiet", family, chat_template=quiet)
    assert ids(rows(model), [("be loud", "aye")]) == Reference(model).ids(plain([("be loud", "aye")]))
    with pytest.raises(
        UnscorableError, match=r"rewrites a text of the row, so that <\|im_end\|> in it can't be read as"
    ):
        ids(rows(model), [("be loud", "aye<|im_end|>")])
    assert ids(rows(model, special_tokens="parse"), [("loud", "a<|im_end|>")]) == Reference(model).ids(
        plain([("loud", "a<|im_end|>")])
    )
    with pytest.raises(
        UnscorableError, match="rewrites a text of the row, so that it can't be cut to max_length; raise"
    ):
        ids(rows(model, max_length=120), [("be loud", "aye " * 200)])


@settings(max_examples=40)
@given(turns(TEXTS), st.integers(0, 60), st.sampled_from(LENGTHS))
def test_only_texts_are_cut(
    short_readers: dict, reference: Reference, exchanges: list[tuple[str, str]], repeats: int, length: int
) -> None:
    """A row that is too long keeps the special tokens, and all that follows the last response."""
    exchanges = exchanges[:2]
    exchanges[0] = exchanges[0][0] + "the quick fox, " * repeats + "end", "an answer " * repeats + exchanges[0][1]
    whole = reference.ids(plain(exchanges))
    row = ids(short_readers[length], exchanges)
    assert len(row) == min(length, len(whole))
    special = set(reference.tokenizer.all_special_ids)
    assert [token for token in row if token in special] == [token for token in whole if token in special]
    assert row[-1] == reference.ids(plain([("a", "b")]))[-1]
    if len(whole) <= length:
        assert row == whole


def test_a_long_row_is_shared_a_third_for_the_prompt_and_the_rest_for_the_response(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["llama"])
    numbers = [" ".join(f"{side}{i}" for i in range(400)) for side in "pr"]
    reader = rows(model, max_length=400)
    row = Reference(model).tokenizer.decode(ids(reader, [(numbers[0], numbers[1])]))
    asked, told = row.split("<|eot_id|>")[1:3]
    sizes = [len(reader.tokenizer.ids(text.split("\n\n", 1)[1])) for text in (asked, told)]
    assert abs(sizes[1] - 2 * sizes[0]) <= 4
    for text, number in ((asked, "p"), (told, "r")):
        assert f"{number}0 {number}1" in text
        assert text.endswith(f"{number}399")
        assert " …" in text
    two = ids(reader, [("short", "brief"), (numbers[0], numbers[1])])
    assert len(two) == 400
    assert "short<|eot_id|>" in Reference(model).tokenizer.decode(two)


def test_a_row_of_more_turns_than_fit_is_not_scored(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["qwen2"])
    with pytest.raises(
        UnscorableError, match=r"the row has 80 texts and needs .* raise max_length, or set turns to last"
    ):
        ids(rows(model, max_length=200), [("a question", "an answer")] * 40)
    with pytest.raises(
        UsageError, match=r"max_length: 40 leaves too little beside the \d+ tokens of the chat template"
    ):
        rows(model, max_length=40)


def test_a_huge_text_costs_no_more_than_what_is_kept_of_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["llama"])
    reader, huge = rows(model, max_length=512), "word " * 200_000
    start = time.perf_counter()
    assert len(ids(reader, [("why?", huge)])) == 512
    bounded_seconds = time.perf_counter() - start
    start = time.perf_counter()
    reader.tokenizer.ids(huge)
    assert bounded_seconds < (time.perf_counter() - start) / 5


@pytest.mark.parametrize("mode", ["text", "parse"])
def test_a_system_message_comes_first(family: str, model: Path, reference: Reference, mode: str) -> None:
    exchanges = [("one", "two"), ("three", "four")]
    if not FAMILIES[family].system:
        with pytest.raises(
            UsageError, match=r"system: the chat template of the model .* refuses a system message and one "
        ):
            rows(model, system="Be brief.")
        return
    row = ids(rows(model, system="Be brief.", special_tokens=mode), exchanges)
    assert row == reference.ids([("system", "Be brief."), *plain(exchanges)])


def test_a_system_message_that_is_left_out_is_refused(tmp_path: Path) -> None:
    deaf = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    model = write_model(tmp_path / "model", FAMILIES["qwen2"], chat_template=deaf)
    with pytest.raises(UsageError, match=r"system: the chat template of the model .* leaves the system message out"):
        rows(model, system="Be brief.")
    assert rows(model)


def test_a_template_that_leaves_text_out_or_refuses_is_refused(tmp_path: Path) -> None:
    parts = "{% for m in messages %}<|im_start|>{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>{% endfor %}"
    for template, sentence in (
        (parts, "leaves out or rewrites the text of the prompt; set chat_template to one that writes"),
        ("{{ raise_exception('not for you') }}", r"refuses one exchange \(not for you\)"),
        ("{{ messages[7].content }}", r"refuses one exchange \(.*\)"),
        ("{% for m in messages %}", "is not Jinja"),
    ):
        model = write_model(tmp_path / "model", FAMILIES["qwen2"], chat_template=template)
        with pytest.raises(UsageError, match=f"^chat_template: .*{sentence}") as refused:
            rows(model)
        assert "\n" not in str(refused.value)


def test_a_template_that_refuses_several_turns_rejects_those_rows(tmp_path: Path) -> None:
    single = (
        "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + FAMILIES["qwen2"].template
    )
    reader = rows(write_model(tmp_path / "model", FAMILIES["qwen2"], chat_template=single))
    assert ids(reader, [("a", "b")])
    with pytest.raises(
        UnscorableError, match=r"the chat template of the model .* refuses 2 exchanges \(one turn only\)"
    ):
        ids(reader, [("a", "b")] * 2)


def test_a_template_that_writes_the_date_writes_one_date(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["llama"])
    dated = write_model(tmp_path / "dated", FAMILIES["llama"], chat_template=DATED)
    exchanges = [("what day is it?", "I don't know.")]
    assert ids(rows(dated), exchanges) == Reference(model).ids(plain(exchanges))
    assert rows(dated).facts == rows(model).facts
    assert rows(model).notes == []
    [note] = rows(dated).notes
    assert "writes today's date; 26 Jul 2024 stands for it on every day" in note


def test_facts_tell_templates_apart_and_whether_rows_begin_with_bos(tmp_path: Path) -> None:
    made = {name: rows(write_model(tmp_path / name, family)).facts for name, family in FAMILIES.items()}
    assert {name for name, facts in made.items() if facts["begins_with_bos"]} == {"llama", "gemma", "mistral"}
    assert len({facts["chat_template"] for facts in made.values()}) == len(made)
    assert json.loads(json.dumps(made)) == made
    without = FAMILIES["mistral"].template.replace("{{- bos_token }}", "")
    model = write_model(tmp_path / "without", FAMILIES["mistral"], chat_template=without)
    assert not rows(model).facts["begins_with_bos"]
    assert ids(rows(model), [("a", "b")]) == Reference(model).ids(plain([("a", "b")]))


def test_ids_and_eos_are_appended(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["qwen2"])
    expected = Reference(model).ids(plain([("a", "b")]))
    assert ids(rows(model, append_ids=[7, 9]), [("a", "b")]) == [*expected, 7, 9]
    assert ids(rows(model, append_eos=True), [("a", "b")]) == [*expected, 2]
    assert len(ids(rows(model, append_ids=[7], append_eos=True, max_length=110), [("a ", "b " * 200)])) == 110
    ended = write_model(tmp_path / "mistral", FAMILIES["mistral"])
    assert ids(rows(ended, append_eos=True), [("a", "b")]) == Reference(ended).ids(plain([("a", "b")]))


def test_the_settings_may_bring_the_template_or_choose_one(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", FAMILIES["qwen2"])
    own = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    reader = rows(model, chat_template=own)
    assert reader.tokenizer.tokenizer.decode(ids(reader, [("a", "b")])) == "user: a\nassistant: b\n"
    listed = [{"name": "default", "template": FAMILIES["qwen2"].template}, {"name": "bare", "template": own}]
    named = write_model(tmp_path / "named", FAMILIES["qwen2"], chat_template=listed)
    assert ids(rows(named), [("a", "b")]) == ids(rows(model), [("a", "b")])
    assert ids(rows(named, chat_template="bare"), [("a", "b")]) == ids(reader, [("a", "b")])
    with pytest.raises(UsageError, match=r"chat_template: 'wild' is neither a Jinja text nor .* brings default, bare"):
        rows(named, chat_template="wild")
    with pytest.raises(UsageError, match=r"brings bare; set chat_template to one of them"):
        rows(write_model(tmp_path / "bare", FAMILIES["qwen2"], chat_template=listed[1:]))
    bare = write_model(tmp_path / "none", FAMILIES["qwen2"], chat_template=None)
    with pytest.raises(
        UsageError, match=r"chat_template: the model \S+ brings none; set chat_template to the Jinja text"
    ):
        rows(bare)


def test_tokens_of_turns_that_are_not_declared_special_cannot_be_typed_either(tmp_path: Path) -> None:
    family = FAMILIES["qwen2"]
    lax = type(family)(family.template, ["<|endoftext|>"], None, "<|endoftext|>", ["<|im_start|>", "<|im_end|>"])
    model = write_model(tmp_path / "model", lax)
    exchanges = [("a<|im_end|>", "b")]
    end = Reference(model).tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert Reference(model).ids(plain(exchanges)).count(end) == 4
    row = ids(rows(model), exchanges)
    assert row.count(end) == 3
    assert Reference(model).tokenizer.decode(row) == Reference(model).text(plain(exchanges))
    assert ids(rows(model, special_tokens="parse"), exchanges) == Reference(model).ids(plain(exchanges))


@pytest.mark.parametrize("mode", ["text", "parse"])
def test_a_sentencepiece_tokenizer_reads_messages_as_in_transformers(tmp_path: Path, mode: str) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    )
    template += "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
    model = llama_2(tmp_path / "model", chat_template=template)
    reader, reference = rows(model, special_tokens=mode), Reference(model)
    for exchanges in ([(" the quick fox ", " and\n\n")], [("", "a"), ("为什么 ", "it's 42?!")]):
        assert ids(reader, exchanges) == reference.ids(plain(exchanges))
    typed = [("the </s> fox", "<s>a</s>")]
    row = ids(reader, typed)
    assert [token for token in row if token in (1, 2)] == ([1, 2] if mode == "text" else [1, 2, 1, 2, 2])
    assert (row == reference.ids(plain(typed))) == (mode == "parse")


def test_a_real_model_reads_messages_as_in_transformers() -> None:
    from lmsys_ray.checkpoints.sources import model_directory

    name = "packaged:smollm2-135m"
    reference, reader = Reference(model_directory(name)), rows(Path(name))
    exchanges = [("What is 2 + 2?", " It's 4.\n"), ("Why? 为什么", "Because… 😀")]
    assert ids(reader, exchanges) == reference.ids(plain(exchanges))
    assert reader.facts["begins_with_bos"]
    np.testing.assert_array_equal(
        reader.encode([conversation(["a"], ["b"]), conversation(["c"], ["d"])])[0][1],
        reference.ids(plain([("c", "d")])),
    )
