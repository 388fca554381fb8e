"""The files that hold chat templates, and whose count."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lmsys_ray.checkpoints.sources import read_templates, read_tokenizer
from lmsys_ray.errors import UsageError
from tests.checkpoints.test_tokenizer_files import byte_level

LISTED = [{"name": "default", "template": "listed"}, {"name": "rag", "template": "{{ messages }}"}]


def templates(model: Path, adapter: Path | None = None) -> dict[str, str]:
    return read_templates(str(model), None if adapter is None else str(adapter))[0]


@pytest.mark.parametrize("config", [None, "text", LISTED])
@pytest.mark.parametrize("files", [{}, {"chat_template.jinja": "of a file"}])
@pytest.mark.parametrize("more", [{}, {"tool_use.jinja": "tools"}])
def test_templates_are_those_of_transformers(tmp_path: Path, config: object, files: dict, more: dict) -> None:
    model = byte_level(tmp_path / "model", chat_template=config)
    for name, content in files.items():
        (model / name).write_text(content)
    for name, content in more.items():
        (model / "additional_chat_templates").mkdir(exist_ok=True)
        (model / "additional_chat_templates" / name).write_text(content)
    expected = AutoTokenizer.from_pretrained(model).chat_template or {}
    assert templates(model) == ({"default": expected} if isinstance(expected, str) else expected)


def test_what_a_processor_wrote_counts_where_there_is_nothing_else(tmp_path: Path) -> None:
    model = byte_level(tmp_path / "model")
    (model / "chat_template.json").write_text('{"chat_template": "of a processor"}')
    assert templates(model) == {"default": "of a processor"}
    (model / "chat_template.jinja").write_text("of a file")
    assert templates(model) == {"default": "of a file"}


def test_an_adapters_templates_count_where_it_brings_a_tokenizer(tmp_path: Path) -> None:
    model = byte_level(tmp_path / "model", chat_template="model's")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    assert read_templates(str(model), str(adapter)) == ({"default": "model's"}, f"model: {model}")
    (adapter / "chat_template.jinja").write_text("adapter's")
    assert read_templates(str(model), str(adapter)) == ({"default": "adapter's"}, f"adapter: {adapter}")
    with_tokenizer = byte_level(tmp_path / "whole")
    assert read_templates(str(model), str(with_tokenizer)) == ({}, f"adapter: {with_tokenizer}")


@pytest.mark.parametrize("damaged", [7, [], ["text"], [{"name": "default"}], [{"name": 1, "template": "a"}]])
def test_a_template_of_another_type_is_one_sentence(tmp_path: Path, damaged: object) -> None:
    model = byte_level(tmp_path / "model", chat_template=damaged)
    with pytest.raises(UsageError, match=r"^model: \S+: its chat_template is neither a text nor a list of named texts"):
        templates(model)


def test_a_template_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    model = byte_level(tmp_path / "model")
    (model / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"chat_template\.jinja cannot be read"):
        templates(model)


def test_templates_know_the_names_of_special_tokens(tmp_path: Path) -> None:
    extra = {"image_token": "<|pad|>", "audio": "<|x|>"}
    bos = {"content": "<|begin|>", "special": True, "__type": "AddedToken"}
    model = byte_level(tmp_path / "model", extra_special_tokens=extra, bos_token=bos, add_bos_token=True)
    named = AutoTokenizer.from_pretrained(model).special_tokens_map
    ours = read_tokenizer(str(model)).names
    assert {key: named[key] for key in ours} == ours
    more = {"image_token": "<|pad|>", "audio": "<|x|>"}
    assert ours == {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", **more}
    assert json.loads((model / "tokenizer_config.json").read_text())["add_bos_token"] is True
