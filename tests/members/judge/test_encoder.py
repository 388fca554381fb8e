"""What a judge is asked, and the tokens that are its verdicts."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.checkpoints.sources import model_directory
from lmsys_ray.errors import UsageError
from lmsys_ray.members.encoded import ENCODED
from lmsys_ray.members.judge.encoder import JudgeEncoder, verdict_ids
from lmsys_ray.members.judge.settings import JudgeSettings
from lmsys_ray.members.protocol import KEPT
from lmsys_ray.prompts.judging import PACKAGED, judging_template
from tests.checkpoints.test_tokenizer_files import llama_2
from tests.members.classifier.test_encoder import conversations
from tests.prompts.chat_models import FAMILIES, Reference, write_model
from tests.prompts.test_chat_rows import TEXTS, TYPED

RLHFLOW = "[CONTEXT] {prompt} [RESPONSE A] {response_a} [RESPONSE B] {response_b} \n"
VERDICTS = {"a": ["A"], "b": ["B"], "tie": ["C"]}


def judge(model: Path | str, **changes: object) -> JudgeEncoder:
    return JudgeEncoder(JudgeSettings(kind="judge", model=str(model), **changes))


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return model_directory("packaged:smollm2-135m")


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> Reference:
    return Reference(smollm2)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("judge") / request.param, FAMILIES[request.param])


@pytest.fixture(scope="module")
def plain(family: Path) -> Reference:
    return Reference(family)


@pytest.fixture(scope="module")
def own_words(family: Path) -> JudgeEncoder:
    return judge(family, prompt=RLHFLOW, verdicts={"tie": None})


@settings(max_examples=50)
@given(st.tuples(TEXTS, TEXTS, TEXTS))
def test_ones_own_words_reach_the_model_through_its_template(
    own_words: JudgeEncoder, plain: Reference, cells: tuple[str, str, str]
) -> None:
    asked = RLHFLOW.format(prompt=cells[0], response_a=cells[1], response_b=cells[2])
    table = own_words.encode(conversations(tuple(json.dumps([cell]) for cell in cells)))
    assert table.schema == pa.schema([*ENCODED, *KEPT])
    expected = plain.ids([("user", asked)], generate=True)
    assert table["input_ids"][0].as_py() == expected
    assert table["tokens"][0].as_py() == len(expected)


@settings(max_examples=40)
@given(st.tuples(TYPED, TYPED, TYPED))
def test_no_cell_can_end_the_question(own_words: JudgeEncoder, plain: Reference, cells: tuple[str, str, str]) -> None:
    row = own_words.encode(conversations(tuple(json.dumps([cell]) for cell in cells)))["input_ids"][0].as_py()
    asked = RLHFLOW.format(prompt=cells[0], response_a=cells[1], response_b=cells[2])
    assert plain.tokenizer.decode(row) == plain.text([("user", asked)], generate=True)
    harmless = plain.ids([("user", RLHFLOW.format(prompt="x", response_a="y", response_b="z"))], generate=True)
    special = plain.tokenizer.all_special_ids
    assert [token for token in row if token in special] == [token for token in harmless if token in special]


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_packaged_prompts_show_both_conversations_and_ask_for_a_verdict(
    smollm2: Path, reference: Reference, name: str
) -> None:
    row = judge(smollm2, prompt=name).encode(conversations(('["p1","p2"]', '["a1","a2"]', '["b1","b2"]')))
    shown = reference.tokenizer.decode(row["input_ids"][0].as_py())
    for side in "AB":
        turns = f"User: p1\n\nAssistant: {side.lower()}1\n\nUser: p2\n\nAssistant: {side.lower()}2"
        assert (
            f"[Conversation with assistant {side}]\n{turns}\n[End of the conversation with assistant {side}]" in shown
        )
    question = "Reply with A if it is assistant A, B if it is assistant B, or C if neither, and nothing else."
    assert shown.endswith(f"{question}<|im_end|>\n<|im_start|>assistant\n")


def test_packaged_prompts_name_the_verdicts() -> None:
    def ends(verdicts: dict[str, list[str]]) -> str:
        return judging_template("pairwise", verdicts).literals[-1].rsplit("? ", 1)[1]

    assert ends({"a": ["1", "one"], "b": ["2"], "tie": []}) == (
        "Reply with 1 if it is assistant A or 2 if it is assistant B, and nothing else."
    )
    assert "Reply with {x} if it is assistant A" in ends({"a": ["{x}"], "b": ["2"], "tie": ["3"]})
    without = judging_template("pairwise_reference_free", VERDICTS)
    assert without.literals != judging_template("pairwise", VERDICTS).literals
    assert "no reference answer" in without.literals[0]


@pytest.mark.parametrize("prefix", ["", "Verdict: ", "Verdict:", "[[", "My choice is  "])
def test_verdicts_are_the_tokens_that_follow_the_question(smollm2: Path, reference: Reference, prefix: str) -> None:
    """An independent look: each token of the vocabulary that spells the verdict, and nothing else, after the text."""
    made = judge(smollm2, prefix=prefix, prompt=RLHFLOW)
    row = made.encode(conversations(("p", "a", "b")))["input_ids"][0].as_py()
    whole = reference.text([("user", RLHFLOW.format(prompt="p", response_a="a", response_b="b"))], True) + prefix
    assert reference.tokenizer.decode(row) == (whole[:-1] if prefix.endswith(" ") else whole)
    assert made.verdict_ids == verdict_ids(made.settings)
    for name, letter in (("a", "A"), ("b", "B"), ("tie", "C")):
        spelt = {prefix + letter} if prefix.endswith(" ") else {prefix + letter, f"{prefix} {letter}"}
        for token in made.verdict_ids[name]:
            assert reference.tokenizer.decode([*row, token]).removeprefix(whole[: len(whole) - len(prefix)]) in spelt
        assert len(made.verdict_ids[name]) == len(spelt)
        ids = reference.tokenizer(whole + letter, add_special_tokens=False)["input_ids"]
        assert ids == [*row, ids[-1]]
        assert ids[-1] in made.verdict_ids[name]


def test_verdicts_of_a_sentencepiece_vocabulary_are_found(tmp_path: Path) -> None:
    """Its tokens begin with a space or not, and what is read alone begins with one."""
    template = "{% for m in messages %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"
    model = llama_2(tmp_path / "model", chat_template=template)
    made, plain = judge(model, prompt=RLHFLOW, verdicts={"tie": None}), Reference(model)
    assert made.encode(conversations(("p", "a ", " b")))["input_ids"][0].as_py() == plain.ids(
        [("user", RLHFLOW.format(prompt="p", response_a="a ", response_b=" b"))], generate=True
    )
    vocabulary = plain.tokenizer.get_vocab()
    expected = {
        name: [vocabulary[token] for token in (letter, f"▁{letter}") if token in vocabulary]
        for name, letter in (("a", "A"), ("b", "B"))
    }
    assert made.verdict_ids == {**expected, "tie": []}
    assert len(expected["a"]) == 2


def test_texts_of_one_verdict_are_all_counted(smollm2: Path, reference: Reference) -> None:
    encode = reference.tokenizer.encode
    found = judge(smollm2, verdicts={"a": ["A", "First"], "b": ["B", "Second"], "tie": None}).verdict_ids
    assert found == {
        "a": [*encode("A"), *encode(" A"), *encode("First"), *encode(" First")],
        "b": [*encode("B"), *encode(" B"), *encode("Second"), *encode(" Second")],
        "tie": [],
    }


def test_a_verdict_of_several_tokens_is_refused(smollm2: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^verdicts\.a: '\[\[A\]\]' is no single token after the prompt, but '\[\[' \+ 'A'"
    ):
        judge(smollm2, verdicts={"a": "[[A]]", "b": "[[B]]", "tie": "[[C]]"})
    assert judge(smollm2, prefix="[[").verdict_ids["a"]
    with pytest.raises(UsageError, match=r"^verdicts: a and b share the token 'A'; give each texts of its own"):
        judge(smollm2, verdicts={"a": "A", "b": ["B", "A"]})


def test_prompts_that_cannot_be_meant_are_refused(smollm2: Path) -> None:
    for prompt, sentence in (
        ("pairwize", "prompt: 'pairwize' is neither one of pairwise, pairwise_reference_free nor a text"),
        ("{prompt} {response_a}", "prompt: .* has no {response_b} nor {conversation_b}"),
        ("{response_a} {response_b} {answer}", "prompt: {answer} is not a placeholder"),
    ):
        with pytest.raises(UsageError, match=sentence):
            judge(smollm2, prompt=prompt)


def test_long_conversations_are_cut_and_the_question_is_not(smollm2: Path, reference: Reference) -> None:
    made = judge(smollm2, max_length=500)
    cells = tuple(f"{name} " + "word " * 3000 + f"end-{name}" for name in ("p", "a", "b"))
    row = made.encode(conversations(cells))["input_ids"][0].as_py()
    shown = reference.tokenizer.decode(row)
    assert len(row) == 500
    assert shown.endswith("and nothing else.<|im_end|>\n<|im_start|>assistant\n")
    assert all(shown.count(f"end-{name}\n") == times for name, times in (("p", 2), ("a", 1), ("b", 1)))
    with pytest.raises(
        UsageError, match=r"max_length: 100 leaves too little beside the \d+ tokens of the chat template"
    ):
        judge(smollm2, max_length=100)


def test_the_page_shows_how_a_model_of_pair_preferences_is_read(tmp_path: Path) -> None:
    """Its makers replace BOS by nothing and read the logits of A and B; see their pipeline on the model's card."""
    page = (Path(__file__).parents[3] / "docs" / "prompts.md").read_text(encoding="utf-8")
    given = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["members"]["preference"]
    model = write_model(tmp_path / "model", FAMILIES["llama"])
    made = JudgeEncoder(JudgeSettings.model_validate({**given, "model": str(model)}))
    row = made.encode(conversations((" why? ", "since\n", "no ")))["input_ids"][0].as_py()
    asked = "[CONTEXT] \n\n<turn> user\n  why? \n [RESPONSE A] since\n [RESPONSE B] no "
    text = "<|start_header_id|>user<|end_header_id|>\n\n" + asked.strip() + "<|eot_id|>"
    tokenizer = Reference(model).tokenizer
    expected = tokenizer(f"{text}<|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)
    assert row == expected["input_ids"]
    assert tokenizer.convert_tokens_to_ids("A") in made.verdict_ids["a"]
    assert made.verdict_ids["tie"] == []


@pytest.mark.slow
def test_the_verdict_tokens_are_where_the_models_own_logits_are(smollm2: Path, reference: Reference) -> None:
    """The next token that the model finds likely after the question is among the verdicts for a plain question."""
    from transformers import AutoModelForCausalLM

    made = judge(smollm2, prompt="Copy this letter: {prompt}{response_a}{response_b}", prefix="The letter is")
    row = made.encode(conversations(("A", "", "")))["input_ids"][0].as_py()
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([row])).logits[0, -1]
    found = {name: max(float(logits[token]) for token in tokens) for name, tokens in made.verdict_ids.items()}
    assert found["a"] == max(found.values())
