"""Special tokens that users type stay text where they are to; what the template says, and all else, stays as it is."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lmsys_ray.errors import UsageError
from lmsys_ray.fault_tolerance.row_isolation import compute_rows
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.prompts.template import Template
from tests.checkpoints.test_tokenizer_files import byte_level
from tests.members.classifier.test_encoder import TEXTS, conversations

SPECIAL = ["<|begin|>", "<|pad|>", "<|end|>"]
CHAT = "<|end|>user\n{prompt}<|end|>\nA: {response_a}<|pad|><|end|>B: {response_b}<|end|>\n"
TYPED = st.lists(st.sampled_from([*SPECIAL, "<|end|", "|>", "<|", "x", " ", "\n"]), max_size=12).map("".join) | TEXTS
CELLS = st.tuples(TYPED, TYPED, TYPED)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("special") / "model")


@pytest.fixture(scope="module")
def encoders(model: Path) -> dict[tuple[str, str], ClassifierEncoder]:
    templates = {"labelled": "labelled", "chat": CHAT}
    return {
        (name, mode): encoder(model, template=template, special_tokens=mode)
        for name, template in templates.items()
        for mode in ("text", "parse")
    }


def encoder(model: Path, **changes: object) -> ClassifierEncoder:
    return ClassifierEncoder(
        ClassifierSettings(kind="llama", model=str(model), **{"truncation": "balanced", **changes})
    )


def attempt(start: int, stop: int) -> nullcontext[None]:
    return nullcontext()


def ids(made: ClassifierEncoder, cells: tuple[str, str, str]) -> list[int]:
    return made.encode(conversations(tuple(json.dumps([cell]) for cell in cells)))["input_ids"][0].as_py()


@settings(max_examples=80)
@given(CELLS, st.sampled_from(["labelled", "chat"]))
def test_no_special_id_comes_out_of_a_cell(encoders: dict, cells: tuple[str, str, str], name: str) -> None:
    made = encoders[name, "text"]
    row = ids(made, cells)
    template = Template.parse(made.settings.template)
    rendered = template.render(dict(zip(("prompt", "response_a", "response_b"), cells, strict=True)))
    assert made.tokenizer.tokenizer.decode(row[1:], skip_special_tokens=False) == rendered
    assert [i for i in row[1:] if i < 3] == ([2, 2, 1, 2, 2] if name == "chat" else [])


@settings(max_examples=80)
@given(st.tuples(TEXTS, TEXTS, TEXTS), st.sampled_from(["labelled", "chat"]))
def test_rows_without_special_tokens_have_the_same_ids(encoders: dict, cells: tuple[str, str, str], name: str) -> None:
    cells = tuple(cell.replace("<|pad|>", "") for cell in cells)
    if not any(token in cell for token in SPECIAL for cell in cells):
        assert ids(encoders[name, "text"], cells) == ids(encoders[name, "parse"], cells)


def test_special_tokens_are_parsed_where_that_is_said_or_nothing_is(model: Path, tmp_path: Path) -> None:
    cells = ("<|end|>", "a", "b")
    (tmp_path / "adapter_config.json").write_text("{}")
    for noted, changes, parsed in (
        ({}, {}, True),
        ({}, {"special_tokens": "parse"}, True),
        ({}, {"special_tokens": "text"}, False),
        ({"special_tokens": "text"}, {}, False),
        ({"special_tokens": "parse"}, {}, True),
        ({"special_tokens": "text"}, {"special_tokens": "parse"}, True),  # which `check_as_trained` refuses
    ):
        (tmp_path / "scoring.json").write_text(json.dumps(noted))
        row = ids(encoder(model, adapter=str(tmp_path), **changes), cells)
        assert (2 in row) == parsed, (noted, changes)
    assert 2 in ids(encoder(model), cells)
    (tmp_path / "scoring.json").write_text('{"special_tokens": "perhaps"}')
    with pytest.raises(UsageError, match="says special_tokens = 'perhaps'; restore it"):
        encoder(model, adapter=str(tmp_path))


@pytest.mark.parametrize("truncation", ["right", "balanced"])
def test_a_template_with_special_tokens_is_cut_as_before(model: Path, truncation: str) -> None:
    cells = ("why?", "alpha " * 200, "beta " * 200)
    rows = [
        ids(encoder(model, template=CHAT, max_length=100, truncation=truncation, special_tokens=mode), cells)
        for mode in ("text", "parse")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 100


def test_split_special_tokens_reads_the_whole_row_as_text(tmp_path: Path) -> None:
    splits = byte_level(tmp_path / "model", split_special_tokens=True)
    row = ids(encoder(splits, template=CHAT), ("<|end|>", "a", "b"))
    assert [i for i in row if i < 3] == [0]
    with pytest.raises(UsageError, match="parse contradicts split_special_tokens = true"):
        encoder(splits, special_tokens="parse")


def test_a_special_token_that_the_vocabulary_spells_rejects_its_row(tmp_path: Path) -> None:
    """A Unigram vocabulary holds its special tokens as pieces, so that no text can spell them otherwise."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "▁ab</s>|:")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = encoder(tmp_path, template="{response_a}|{response_b}</s>", special_tokens="text", truncation="right")
    table = conversations(("", "a", "b"), ("", "a</s>b", "b"), ("", "z", "b"))
    parts, failed = compute_rows(3, lambda start, stop: made.encode(table.slice(start, stop - start)), attempt)
    assert [row[-1] for part in parts for row in part["input_ids"].to_pylist()] == [1, 1]
    assert list(failed) == [1]
    assert "a text spells the special token </s>, which this tokenizer cannot read as text" in failed[1]


def test_a_special_token_that_is_told_by_its_neighbours_is_refused(tmp_path: Path) -> None:
    """One that only counts as a word of its own is no token where the template has it within a word."""
    file = byte_level(tmp_path / "model") / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"][2]["single_word"] = True
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="special_tokens: this tokenizer reads"):
        encoder(file.parent, template="a<|end|>{response_a}<|end|>b{response_b}", special_tokens="text")
