"""Conversations become token ids; shortcuts change nothing."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ENCODED, ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.protocol import KEPT
from lmsys_ray.prompts import truncation
from lmsys_ray.prompts.rows import token_spans
from lmsys_ray.prompts.template import PACKAGED
from lmsys_ray.prompts.tokenizer import BOUNDARY, NO_BOUNDARY, BoundedTokenizer
from tests.tiny_llama import make_tokenizer

# Words, runs of white space, digits, punctuation before line ends and contractions: what pre-tokenizers tell apart.
PIECES = [
    "the fox",
    " ",
    "  ",
    "\n",
    "\n\n",
    " \n \n",
    "it's",
    "42",
    "?!",
    "...\n",
    "é",
    "为什么",
    "😀",
    "'",
    "\t",
    "<|pad|>",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=80)


def conversations(*rows: tuple[str, str, str]) -> pa.Table:
    columns = {name: pa.array([row[i] for row in rows], pa.large_string()) for i, name in enumerate(NAMES)}
    return pa.table({"row": pa.array(range(len(rows)), pa.int64()), **columns})


NAMES = ("prompt", "response_a", "response_b")


def encoder(model: str, **changes: object) -> ClassifierEncoder:
    return ClassifierEncoder(ClassifierSettings(kind="llama", model=model, **changes))


@pytest.fixture(scope="session")
def bounded(model: str) -> BoundedTokenizer:
    return BoundedTokenizer(Tokenizer.from_file(f"{model}/tokenizer.json"))


@pytest.fixture(scope="session", params=["bytes", "llama3", "metaspace"])
def family(request: pytest.FixtureRequest, bounded: BoundedTokenizer) -> BoundedTokenizer:
    """Tokenizers of three families: GPT-2's pieces, Llama 3's, and SentencePiece's, which merge over the whole text."""
    if request.param == "bytes":
        return bounded
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    if request.param == "llama3":
        pattern = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["?"], show_progress=False)
    tokenizer.train_from_iterator(["".join(PIECES), "the fox it's 42?!\n\n " * 20], trainer)
    if request.param == "metaspace":
        tokenizer.pre_tokenizer, tokenizer.normalizer = None, normalizers.Replace(" ", "▁")
    bounded = BoundedTokenizer(tokenizer)
    assert bounded.boundary is BOUNDARY  # or no text would be shortened, and nothing tested
    return bounded


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 12))
def test_first_tokens_equal_those_of_the_whole_text(family: BoundedTokenizer, texts: list[str], count: int) -> None:
    found = family.first_tokens(texts, count)
    for ids, text in zip(found, texts, strict=True):
        np.testing.assert_array_equal(ids, family.ids(text)[:count])


@given(TEXTS, st.integers(0, 40))
def test_characters_that_tokens_cover_end_where_the_last_of_them_ends(
    family: BoundedTokenizer, text: str, count: int
) -> None:
    text += " the fox" * 30
    [(ids, offsets)] = family.encode([text])
    ends = int(offsets[count - 1, 1]) if count else 0
    # A token may hold a part of a character, which counts as soon as it is complete.
    assert ends - 1 <= family.characters(text, ids[:count]) <= ends
    assert not text[:ends].isascii() or family.characters(text, ids[:count]) == ends


@given(TEXTS, TEXTS, st.integers(1, 6))
def test_shortening_keeps_the_tokens_of_both_ends(family: BoundedTokenizer, text: str, other: str, count: int) -> None:
    text = text + "the fox and it's 42?! \n " * 12 + other
    shortened = family.shorten(text, count)
    whole, short = family.ids(text), family.ids(shortened)
    np.testing.assert_array_equal(short[:count], whole[:count])
    np.testing.assert_array_equal(short[-count:], whole[-count:])
    assert len(short) >= min(len(whole), 2 * count)


@settings(max_examples=60)
@given(st.tuples(TEXTS, TEXTS, TEXTS), st.integers(100, 160), st.integers(0, 40), st.sampled_from([*PACKAGED]))
def test_balanced_rows_equal_those_of_the_whole_text(
    model: str, texts: tuple[str, str, str], length: int, repeats: int, template: str
) -> None:
    long = (texts[0], texts[1] + "the quick fox, " * repeats, texts[2] * 3)
    made = encoder(model, max_length=length, truncation="balanced", template=template)
    row = made.encode(conversations(tuple(cell or " " for cell in long)))["input_ids"][0].as_py()
    (filled,) = made.filled(dict(zip(NAMES, (cell or " " for cell in long), strict=True)))
    [(ids, offsets)] = made.tokenizer.encode([filled.text])
    spans = token_spans(filled.template.spans(filled.texts), offsets)
    whole = truncation.balanced(ids, spans, made.room, made.tokenizer.ids(" …"), [1, 2, 2])
    assert row == [0, *whole]


@settings(max_examples=60)
@given(st.tuples(TEXTS, TEXTS, TEXTS), st.integers(16, 200))
def test_notebook_rows_equal_the_transformers_tokenizer(model: str, cells: tuple[str, str, str], length: int) -> None:
    reference = PreTrainedTokenizerFast.from_pretrained(model)
    made = encoder(model, max_length=length, text="notebook", template="notebook")
    encoded = made.encode(conversations(cells))
    texts = [" ".join(piece.strip('"') for piece in cell.strip("[]").split('","')) for cell in cells]
    text = "User prompt: {}\n\nModel A :\n{}\n\n--------\n\nModel B:\n{}".format(*texts)
    expected = reference(text, truncation=True, max_length=length)["input_ids"]
    assert encoded["input_ids"][0].as_py() == expected
    assert encoded["tokens"][0].as_py() == len(expected)


def test_the_encoded_table_has_one_row_each_in_the_order_given(model: str) -> None:
    table = conversations(('["p"]', '["a"]', '["b"]'), ('["longer prompt"]', "[null]", '["b"]'))
    table = table.set_column(0, "row", pa.array([41, 7], pa.int64()))
    encoded = encoder(model).encode(table)
    assert encoded.schema == pa.schema([*ENCODED, *KEPT])
    assert encoded["row"].to_pylist() == [41, 7]
    assert encoded["tokens"].to_pylist() == [len(ids) for ids in encoded["input_ids"].to_pylist()]
    assert encoder(model).encode(table.slice(0, 0)).num_rows == 0


def test_a_chunked_table_is_encoded_like_a_whole_one(model: str) -> None:
    first, second = conversations(('["p"]', '["a"]', '["b"]')), conversations(('["q"]', '["c"]', '["d"]'))
    encoded = encoder(model).encode(pa.concat_tables([first, second]))
    assert encoded["input_ids"].to_pylist() == [
        encoder(model).encode(part)["input_ids"][0].as_py() for part in (first, second)
    ]


@pytest.mark.parametrize("truncation_mode", ["right", "balanced"])
def test_a_huge_cell_costs_no_more_than_what_is_kept_of_it(model: str, truncation_mode: str) -> None:
    made = encoder(model, max_length=512, truncation=truncation_mode)
    huge = conversations(("why?", "word " * 300_000, "short"))
    whole = made.templates[0].render({"prompt": "why?", "response_a": "word " * 300_000, "response_b": "short"})
    start = time.perf_counter()
    assert made.encode(huge)["tokens"][0].as_py() == 512
    bounded_seconds = time.perf_counter() - start
    start = time.perf_counter()
    made.tokenizer.ids(whole)
    assert bounded_seconds < (time.perf_counter() - start) / 5


def test_balanced_shows_the_end_of_every_field_where_right_loses_response_b(model: str) -> None:
    row = ("Why?", '["' + "alpha " * 400 + 'OMEGA"]', '["' + "beta " * 400 + 'SIGMA"]')
    texts = {}
    for mode in ("right", "balanced"):
        made = encoder(model, max_length=128, truncation=mode)
        ids = made.encode(conversations(row))["input_ids"][0].as_py()
        assert len(ids) == 128
        texts[mode] = made.tokenizer.tokenizer.decode(ids)
    assert "Model B" not in texts["right"]
    assert all(part in texts["balanced"] for part in ("Why?", "alpha", "OMEGA", "Model B:", "beta", "SIGMA", "…"))


def test_a_length_that_leaves_no_room_for_fields_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="max_length: 40 leaves too little"):
        encoder(model, max_length=40, truncation="balanced")


def test_a_vocabulary_with_tokens_across_words_is_never_shortened() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, " ": 1, "a ": 2}, merges=[("a", " ")]))
    assert BoundedTokenizer(tokenizer).boundary is NO_BOUNDARY


def test_a_directory_without_a_tokenizer_file_is_refused(tmp_path: object) -> None:
    with pytest.raises(UsageError, match=r"^model: .* holds no tokenizer\.json"):
        encoder(str(tmp_path))


PAIR = ["{prompt}", "A: {response_a}\nB: {response_b}"]


@pytest.fixture(scope="module")
def pair_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer that joins two texts as BERT's does, with types."""
    folder = tmp_path_factory.mktemp("pair")
    tokenizer = make_tokenizer(folder)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>",
        pair="<|begin|> $A <|end|> $B:1 <|end|>:1",
        special_tokens=[("<|begin|>", 0), ("<|end|>", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


@settings(max_examples=60)
@given(st.tuples(TEXTS, TEXTS, TEXTS), st.integers(16, 200))
def test_pairs_equal_those_of_the_transformers_tokenizer(
    pair_model: str, cells: tuple[str, str, str], length: int
) -> None:
    reference = PreTrainedTokenizerFast.from_pretrained(pair_model)
    made = encoder(pair_model, max_length=length, text="notebook", template=PAIR, truncation="right")
    encoded = made.encode(conversations(cells))
    texts = [" ".join(piece.strip('"') for piece in cell.strip("[]").split('","')) for cell in cells]
    texts = [texts[0], f"A: {texts[1]}\nB: {texts[2]}"]
    # Which of two texts is longer is not looked up where each alone exceeds the length: the second gets an odd token.
    assume(min(len(reference(text, add_special_tokens=False)["input_ids"]) for text in texts) < made.room)
    expected = reference(*texts, truncation="longest_first", max_length=length, return_token_type_ids=True)
    ids = encoded["input_ids"][0].as_py()
    assert ids == expected["input_ids"]
    second = encoded["second"][0].as_py()
    assert [int(place >= second) for place in range(len(ids))] == expected["token_type_ids"]


def test_a_long_pair_is_balanced_over_the_cells_of_both_texts(pair_model: str) -> None:
    made = encoder(pair_model, max_length=128, template=PAIR, truncation="balanced")
    (ids,) = made.encode(conversations(("why ? " * 500, "yes , " * 500, "no . " * 500)))["input_ids"].to_pylist()
    assert len(ids) == 128
    second = made.encode(conversations(("why ? " * 500, "yes , " * 500, "no . " * 500)))["second"][0].as_py()
    room = made.room - sum(len(made.tokenizer.ids(literal)) for literal in ("A: ", "\nB: "))
    assert second - 2 == pytest.approx(room / 5, abs=1)
    short = made.encode(conversations(("why?", "yes , " * 500, "no")))
    assert len(short["input_ids"][0].as_py()) == 128
    assert short["second"][0].as_py() == 2 + len(made.tokenizer.ids("why?"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (["{prompt}", "{response_a}"], r"has no \{response_b\} nor"),
        (["{prompt}", "{response_a}{response_b}"], "has no text of its own"),
        (["{prompt} {response_a}", "{response_a} {response_b}"], "occurs twice"),
    ],
)
def test_a_pair_that_lacks_something_is_one_sentence(pair_model: str, template: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=f"^template: .*{said}") as refused:
        encoder(pair_model, template=template)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_joins_no_pair_is_one_sentence(model: str) -> None:
    with pytest.raises(UsageError, match=r"^template: two texts are for encoders .* give one text"):
        encoder(model, template=PAIR)


def test_a_template_is_one_text_or_two() -> None:
    with pytest.raises(ValueError, match="one text, or a list of two"):
        ClassifierSettings(kind="classifier", model="m", template=["{prompt}", "{response_a}", "{response_b}"])
