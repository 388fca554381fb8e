"""Each response with its prompt becomes the ids that transformers gives them, as a chat or as a pair of texts."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from lmsys_ray.errors import UsageError
from lmsys_ray.members.protocol import KEPT
from lmsys_ray.members.reward.encoder import ENCODED, RewardEncoder
from lmsys_ray.members.reward.settings import RewardSettings
from tests.members.classifier.test_encoder import TEXTS, conversations
from tests.prompts.chat_models import FAMILIES, Reference, write_model
from tests.tiny_llama import CORPUS

BERT = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
ROBERTA = ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]")


def encoder(model: Path | str, append_ids: tuple[int, ...] = (), **changes: object) -> RewardEncoder:
    return RewardEncoder(RewardSettings(kind="reward", model=str(model), **changes), append_ids=append_ids)


def encoded(made: RewardEncoder, *rows: tuple[str, str, str]) -> list[dict[str, Any]]:
    table = made.encode(conversations(*rows))
    assert table.schema == pa.schema([*ENCODED, *KEPT])
    return table.to_pylist()


def pair_model(directory: Path, joined: tuple[str, str] = BERT, model_type: str = "deberta-v2") -> Path:
    """Saves a Unigram tokenizer, as DeBERTa has one, that joins pairs of texts."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["[PAD]", "[UNK]"], unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=joined[0], pair=joined[1], special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids"], **names})
    )
    (directory / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 202}))
    return directory


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("reward") / "llama", FAMILIES["llama"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair_model(tmp_path_factory.mktemp("pair") / "bert")


def test_a_row_is_its_prompt_with_either_response(llama: Path) -> None:
    rows = (('["p1","p2"]', '["a1","a2"]', '["b1",null]'), ("plain", "one", "another"))
    first, second = encoded(encoder(llama), *rows)
    reference = Reference(llama)
    for side, answers in (("a", ("a1", "a2")), ("b", ("b1", ""))):
        messages = [("user", "p1"), ("assistant", answers[0]), ("user", "p2"), ("assistant", answers[1])]
        assert first[f"input_ids_{side}"] == reference.ids(messages)
        assert first[f"second_{side}"] == 0
    assert second["input_ids_b"] == reference.ids([("user", "plain"), ("assistant", "another")])
    assert [row["row"] for row in (first, second)] == [0, 1]
    assert [row["tokens"] for row in (first, second)] == [
        len(row["input_ids_a"]) + len(row["input_ids_b"]) for row in (first, second)
    ]


def test_settings_say_what_a_row_is(llama: Path) -> None:
    row = ('["p1","p2"]', '["a1","a2"]', '["b1","b2"]')
    reference = Reference(llama)
    last = [("user", "p2"), ("assistant", "a2")]
    [generated] = encoded(encoder(llama, turns="last", add_generation_prompt=True), row)
    assert generated["input_ids_a"] == reference.ids(last, generate=True)
    [told] = encoded(encoder(llama, turns="last", system="Score it."), row)
    assert told["input_ids_a"] == reference.ids([("system", "Score it."), *last])
    [appended] = encoded(encoder(llama, turns="last", append_ids=(5,)), row)
    assert appended["input_ids_a"] == [*reference.ids(last), 5]


def test_no_rows_have_the_columns_of_rows(llama: Path, bert: Path) -> None:
    for model in (llama, bert):
        assert encoder(model).encode(conversations()).schema == pa.schema([*ENCODED, *KEPT])
        assert encoder(model).encode(conversations()).num_rows == 0


def test_a_chunked_table_is_encoded_like_a_whole_one(llama: Path) -> None:
    parts = [conversations(("p", "a", "b")), conversations(("q", "c", "d"))]
    made = encoder(llama)
    assert made.encode(pa.concat_tables(parts)).to_pylist() == [made.encode(part).to_pylist()[0] for part in parts]


@settings(max_examples=60)
@given(TEXTS, TEXTS, TEXTS)
def test_pairs_are_those_of_transformers(bert: Path, asked: str, a: str, b: str) -> None:
    reference = AutoTokenizer.from_pretrained(bert)
    cells = tuple(json.dumps([cell]) for cell in (asked, a, b))
    [row] = encoded(encoder(bert), cells)
    texts = [json.loads(cell)[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace") for cell in cells]
    for side, told in (("a", texts[1]), ("b", texts[2])):
        expected = reference([texts[0]], [told], return_token_type_ids=True)
        assert row[f"input_ids_{side}"] == expected["input_ids"][0]
        types = [int(place >= row[f"second_{side}"]) for place in range(len(expected["input_ids"][0]))]
        assert types == expected["token_type_ids"][0]


def test_turns_of_a_pair_are_joined_by_blank_lines(bert: Path) -> None:
    row = ('["p1","p2"]', '["a1","a2"]', '["b1"]')
    reference = AutoTokenizer.from_pretrained(bert)
    assert encoded(encoder(bert), row)[0]["input_ids_a"] == reference("p1\n\np2", "a1\n\na2")["input_ids"]
    assert encoded(encoder(bert, turns="last"), row)[0]["input_ids_b"] == reference("p2", "b1")["input_ids"]
    assert encoder(bert).facts == {"input": "pair"}


def test_a_pair_of_a_tokenizer_without_types_has_none(tmp_path: Path) -> None:
    model = pair_model(tmp_path / "model", ROBERTA, "xlm-roberta")
    [row] = encoded(encoder(model), ("the fox", "a dog", "b"))
    assert row["input_ids_a"] == AutoTokenizer.from_pretrained(model)("the fox", "a dog")["input_ids"]
    assert (row["second_a"], row["second_b"]) == (0, 0)


def test_a_long_pair_is_cut_in_the_middle_of_its_texts(bert: Path) -> None:
    made = encoder(bert, max_length=63)
    [row] = encoded(made, ("the fox " * 200 + "river", "begins " + "lazy dog " * 200 + "morning", "short"))
    assert len(row["input_ids_a"]) == 63
    sep = row["input_ids_a"][-1]
    assert [place for place, token in enumerate(row["input_ids_a"]) if token == sep] == [21, 62]
    assert row["second_a"] == 22
    decode = AutoTokenizer.from_pretrained(bert).decode
    assert decode(row["input_ids_a"][1:21]).startswith("the fox")
    assert decode(row["input_ids_a"][1:21]).endswith("river")
    assert decode(row["input_ids_a"][22:62]).endswith("morning")
    [alone] = encoded(made, ("", "lazy dog " * 20_000, "short"))
    assert len(alone["input_ids_a"]) == 63
    with pytest.raises(
        UsageError, match="max_length: 18 leaves too little beside the 3 special tokens of a pair; give"
    ):
        encoder(bert, max_length=18)


def test_special_tokens_in_a_pair_are_text(tmp_path: Path) -> None:
    model = pair_model(tmp_path / "model")
    for mode, separators in (("auto", 2), ("parse", 3)):
        [row] = encoded(encoder(model, special_tokens=mode), ("a[SEP]b", "c", "d"))
        assert row["input_ids_a"].count(row["input_ids_a"][-1]) == separators


def test_a_pair_that_the_tokenizer_does_not_join_is_refused(tmp_path: Path) -> None:
    model = pair_model(tmp_path / "model", ("[CLS] $A [SEP]", "[CLS] $A $B [SEP]"))
    with pytest.raises(
        UsageError, match=r"^input: the tokenizer \(model: \S+\) does not join two texts, a token of its"
    ):
        encoder(model)


def test_the_kind_of_input_is_told_by_the_architecture_or_set(llama: Path, bert: Path) -> None:
    assert encoder(llama).facts["input"] == "chat"
    assert encoder(bert).facts["input"] == "pair"
    own = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert encoder(bert, input="chat", chat_template=own).facts["input"] == "chat"
    with pytest.raises(UsageError, match="input: the tokenizer"):
        encoder(llama, input="pair")
