"""The files of a tokenizer give the ids that training saw, or a sentence that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from lmsys_ray.checkpoints.as_trained import check_as_trained
from lmsys_ray.checkpoints.sources import load_tokenizer, read_tokenizer
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.members.classifier.test_encoder import conversations
from tests.tiny_llama import CORPUS, make_tokenizer

BOS_AND_EOS = {"single": "<|begin|> $A <|end|>", "special_tokens": [("<|begin|>", 0), ("<|end|>", 2)]}
TEMPLATE = "{response_a}\n\n{response_b}"
TEXTS = [
    ("The quick fox", "it's 42?!\n\n"),
    (" a space before", "and one behind "),
    ("<|end|>typed<|pad|> <|begin|>", "<s>by users</s> <unk>"),
    ("", "因为它更容易读 😀"),
]


def edited(file: Path, **changes: object) -> None:
    """Changes entries of a JSON file; None drops one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def byte_level(directory: Path, **config: object) -> Path:
    make_tokenizer(directory)
    (directory / "config.json").write_text('{"model_type": "llama", "vocab_size": 400}')
    edited(directory / "tokenizer_config.json", **config)
    return directory


def with_post_processor(directory: Path, **template: object) -> Path:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(**template) if template else None
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def without_added_tokens(directory: Path) -> Path:
    """Leaves the special tokens in the vocabulary alone, so that only tokenizer_config.json says what they are."""
    file = directory / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"added_tokens": []}))
    return directory


def with_prefix_space(directory: Path) -> Path:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def llama_2(directory: Path, prepend: str = "first", **config: object) -> Path:
    """A tokenizer of SentencePiece's kind, which transformers' LlamaTokenizer builds anew from its vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([word for text in CORPUS for word in text.split()], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text('{"model_type": "llama", "vocab_size": 420}')
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(names | config))
    return directory


def encoder(model: Path, **changes: object) -> ClassifierEncoder:
    return ClassifierEncoder(ClassifierSettings(kind="llama", model=str(model), **{"template": TEMPLATE, **changes}))


def ids(made: ClassifierEncoder, first: str, second: str) -> list[int]:
    row = ("", json.dumps([first]), json.dumps([second]))
    return made.encode(conversations(row))["input_ids"][0].as_py()


CONSISTENT: list[Callable[[Path], Path]] = [
    byte_level,
    lambda d: byte_level(d, add_bos_token=True, add_eos_token=False),
    lambda d: byte_level(d, split_special_tokens=True),
    lambda d: byte_level(d, add_prefix_space=False),
    lambda d: byte_level(d, tokenizer_class="LlamaTokenizer"),
    lambda d: with_post_processor(byte_level(d, add_bos_token=True, add_eos_token=True), **BOS_AND_EOS),
    lambda d: with_post_processor(byte_level(d, add_bos_token=False)),
    lambda d: with_prefix_space(byte_level(d, add_prefix_space=True)),
    lambda d: with_prefix_space(byte_level(d)),
    lambda d: without_added_tokens(byte_level(d)),
    lambda d: without_added_tokens(byte_level(d, eos_token=None, extra_special_tokens=["<|end|>"])),
    llama_2,
    lambda d: llama_2(d, add_prefix_space=True, add_bos_token=True, add_eos_token=False),
    lambda d: llama_2(d, "never", add_prefix_space=False),
    lambda d: llama_2(d, split_special_tokens=True),
]


@pytest.mark.parametrize("make", CONSISTENT)
def test_rows_have_the_ids_of_auto_tokenizer(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    directory = make(tmp_path / "model")
    made, reference = encoder(directory), AutoTokenizer.from_pretrained(directory)
    for first, second in TEXTS:
        assert ids(made, first, second) == reference(f"{first}\n\n{second}")["input_ids"], (first, second)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda d: byte_level(d, add_eos_token=True),
            "add_eos_token = true but tokenizer.json adds none after a text",
        ),
        (lambda d: byte_level(d, add_bos_token=False), "add_bos_token = false but tokenizer.json adds tokens before"),
        (lambda d: with_post_processor(byte_level(d, add_bos_token=True)), "add_bos_token = true but tokenizer.json"),
        (lambda d: byte_level(d, add_eos_token="yes"), "add_eos_token of tokenizer_config.json is 'yes'"),
        (lambda d: byte_level(d, add_prefix_space=True), "add_prefix_space = true but tokenizer.json adds no space"),
        (lambda d: llama_2(d, add_prefix_space=False), "add_prefix_space = false but tokenizer.json adds a space"),
        (lambda d: llama_2(d, "never"), "tokenizer_class = LlamaTokenizer, which adds one, but tokenizer.json adds no"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    with pytest.raises(UsageError) as error:
        encoder(make(tmp_path / "model"))
    assert str(error.value).startswith("model: ")
    assert sentence in str(error.value)


def test_append_eos_settles_what_add_eos_token_leaves_open(tmp_path: Path) -> None:
    directory = byte_level(tmp_path / "model", add_eos_token=True)
    row = ids(encoder(directory, append_eos=True), "first", "second")
    assert row == [0, *load_tokenizer(str(byte_level(tmp_path / "plain"))).encode("first\n\nsecond").ids[1:], 2]


@pytest.mark.parametrize("truncation", ["right", "balanced"])
def test_append_eos_ends_every_row_in_one_eos_after_truncation(tmp_path: Path, truncation: str) -> None:
    plain = byte_level(tmp_path / "plain")
    adds = with_post_processor(byte_level(tmp_path / "adds"), **BOS_AND_EOS)
    for text in ("short", "the quick brown fox " * 40):
        rows = [
            ids(encoder(model, append_eos=append, truncation=truncation, max_length=64), text, text)
            for model, append in ((plain, True), (adds, False), (adds, True))
        ]
        assert rows[0] == rows[1] == rows[2]
        assert rows[0][-1] == 2
        assert rows[0].count(2) == 1
        assert len(rows[0]) <= 64


def test_append_eos_without_an_eos_is_refused(tmp_path: Path) -> None:
    directory = byte_level(tmp_path / "model", eos_token=None)
    with pytest.raises(UsageError, match=r"append_eos: model: .* names no eos_token that its tokenizer has"):
        encoder(directory, append_eos=True)


@pytest.mark.parametrize("mode", ["parse", "text"])
def test_a_doubled_bos_or_eos_is_refused(tmp_path: Path, mode: str) -> None:
    directory = byte_level(tmp_path / "model")
    with pytest.raises(
        UsageError, match=r"template: it begins with <\|begin\|>, which is added before each row anyway"
    ):
        encoder(directory, template="<|begin|>" + TEMPLATE, special_tokens=mode)
    ending = TEMPLATE + "<|end|>"
    assert ids(encoder(directory, template=ending, special_tokens=mode), "a", "b")[-1] == 2
    with pytest.raises(UsageError, match=r"template: it ends in <\|end\|>, which is added after each row anyway"):
        encoder(directory, template=ending, special_tokens=mode, append_eos=True)
    without = with_post_processor(directory)
    assert ids(encoder(without, template="<|begin|>" + TEMPLATE, special_tokens=mode), "a", "b").count(0) == 1


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A directory with what says that an adapter lies there."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    return tmp_path / "adapter"


def test_the_tokenizer_beside_the_adapter_is_used(tmp_path: Path, adapter: Path) -> None:
    model = byte_level(tmp_path / "model")
    AutoTokenizer.from_pretrained(model).save_pretrained(adapter)
    with_post_processor(adapter, **BOS_AND_EOS)
    reference = AutoTokenizer.from_pretrained(adapter)
    made = encoder(model, adapter=str(adapter))
    for first, second in TEXTS:
        assert ids(made, first, second) == reference(f"{first}\n\n{second}")["input_ids"]
    (adapter / "tokenizer_config.json").unlink()  # a tokenizer.json alone
    read = read_tokenizer(str(model), str(adapter))
    assert read.tokenizer.encode("a").ids[-1] == 2
    assert read.pad_id == 1


def test_a_config_beside_the_adapter_is_not_ignored(tmp_path: Path, adapter: Path) -> None:
    model = byte_level(tmp_path / "model")
    (adapter / "tokenizer_config.json").write_text('{"add_eos_token": true, "eos_token": "<|end|>"}')
    with pytest.raises(UsageError, match=r"^adapter: .* says add_eos_token = true but tokenizer\.json adds none after"):
        encoder(model, adapter=str(adapter))
    assert ids(encoder(model, adapter=str(adapter), append_eos=True), "a", "b")[-1] == 2


def test_an_adapter_may_add_tokens_but_not_move_those_of_the_model(tmp_path: Path, adapter: Path) -> None:
    model = byte_level(tmp_path / "model")
    tokenizer = load_tokenizer(str(model))
    tokenizer.add_special_tokens(["<pad>"])
    tokenizer.save(str(adapter / "tokenizer.json"))
    assert ids(encoder(model, adapter=str(adapter)), "<pad>", "b")[1] == 400
    content = json.loads((adapter / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (adapter / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"adapter: the tokenizer beside .* gives 'a' the id .*\(2 tokens differ\)"):
        encoder(model, adapter=str(adapter))


def test_a_tokenizer_in_another_form_beside_the_adapter_is_refused(tmp_path: Path, adapter: Path) -> None:
    (adapter / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UsageError, match=r"^adapter: .* holds tokenizer\.model but no tokenizer\.json"):
        encoder(byte_level(tmp_path / "model"), adapter=str(adapter))


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("tokenizer.json", "{", "tokenizer.json is not JSON"),
        ("tokenizer.json", "[]", "tokenizer.json is not a mapping"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "tokenizer.json is not a tokenizer"),
        ("tokenizer_config.json", '{"pad_token": ', "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", '{"pad_token": "<nowhere>"}', "its pad_token '<nowhere>' is not a token"),
        ("tokenizer_config.json", '{"pad_token": 3}', "pad_token of its tokenizer is 3"),
        ("tokenizer_config.json", '{"extra_special_tokens": 3}', "extra_special_tokens of its tokenizer is 3"),
        ("special_tokens_map.json", "\ufeff", "special_tokens_map.json is not JSON"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, adapter: Path, file: str, content: str, sentence: str) -> None:
    model = byte_level(tmp_path / "model")
    AutoTokenizer.from_pretrained(model).save_pretrained(adapter)
    for place, directory in (("adapter", adapter), ("model", model)):
        (directory / file).write_text(content)
        with pytest.raises(UsageError, match=f"^{place}: .*{sentence}") as error:
            encoder(model, adapter=str(adapter) if place == "adapter" else None)
        assert len(str(error.value).splitlines()) == 1


def test_a_tokenizer_that_is_cut_or_no_text_is_one_sentence(tmp_path: Path) -> None:
    file = byte_level(tmp_path / "model") / "tokenizer.json"
    for damaged in (file.read_bytes()[:1000], b"\xff\xfe"):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"^model: .*tokenizer\.json (is not JSON|cannot be read)"):
            encoder(file.parent)


@pytest.mark.parametrize(
    ("noted", "said", "accepted"),
    [
        ({"special_tokens": "text"}, {}, True),
        ({"special_tokens": "text"}, {"special_tokens": "text"}, True),
        ({"special_tokens": "text"}, {"special_tokens": "parse"}, False),
        ({"append_eos": True}, {"append_eos": True}, True),
        ({"append_eos": True}, {}, False),
        ({}, {"append_eos": True, "special_tokens": "text"}, True),
    ],
)
def test_how_rows_are_read_is_as_the_adapter_noted(noted: dict, said: dict, accepted: bool) -> None:
    settings = ClassifierSettings(kind="llama", model="m", adapter="a", **said)
    if accepted:
        check_as_trained(noted, settings)
    else:
        with pytest.raises(UsageError, match=f"adapter: a was trained with {next(iter(noted))} = "):
            check_as_trained(noted, settings)
