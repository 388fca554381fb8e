"""GGUF files are converted once, whole, into a directory of the user's cache."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedModel

from lmsys_ray.checkpoints.gguf import converted
from lmsys_ray.checkpoints.sources import load_tokenizer
from lmsys_ray.errors import UsageError
from tests import tiny_llama
from tests.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def original() -> PreTrainedModel:
    return tiny_llama.make_classifier().model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, original: PreTrainedModel) -> Path:
    directory = tmp_path_factory.mktemp("gguf")
    write_gguf(directory / "tiny.gguf", original, tiny_llama.make_tokenizer(directory))
    return directory / "tiny.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path))
    return tmp_path


def test_the_converted_model_is_the_one_that_was_written(file: Path, cache: Path, original: PreTrainedModel) -> None:
    directory = converted(file)
    assert directory.is_relative_to(cache)
    restored = dict(AutoModel.from_pretrained(directory).named_parameters())
    for name, weight in original.named_parameters():
        assert torch.equal(restored[name], weight), name


def test_a_conversion_prints_nothing(file: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    converted(file)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_damaged_is_refused_and_leaves_nothing(file: Path, cache: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGML" + file.read_bytes()[4:])
    with pytest.raises(UsageError, match=r"^model: .*damaged\.gguf cannot be converted \("):
        converted(damaged)
    assert [path.suffix for path in (cache / "gguf").iterdir()] == [".lock"]


def test_the_tokenizer_comes_along(file: Path, cache: Path) -> None:
    reference = Tokenizer.from_file(str(file.parent / "tokenizer.json"))
    text = "The quick brown fox, it's 42?!\n\n为什么"
    found = load_tokenizer(str(file)).encode(text, add_special_tokens=False).ids
    assert found == reference.encode(text, add_special_tokens=False).ids


def test_a_file_is_converted_once_until_it_changes(file: Path, cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    first = converted(copy)
    made = (first / "model.safetensors").stat().st_mtime_ns
    os.utime(copy)  # installed again, the same content
    assert converted(copy) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    assert [path for path in first.parent.iterdir() if path.is_dir()] == [first]


def test_another_models_weights_are_converted_anew(cache: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "one" / "judge.gguf", tmp_path / "two" / "judge.gguf"
    tokenizer = tiny_llama.make_tokenizer(file.parent)
    model = tiny_llama.make_classifier(intermediate_size=8192).model
    write_gguf(file, model, tokenizer)
    changed = bytearray(file.read_bytes())
    assert len(changed) > 6 << 20
    changed[len(changed) // 2] ^= 1
    other.parent.mkdir()
    other.write_bytes(changed)
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as copies and downloads keep it
    assert converted(other) != converted(file)


def test_a_file_that_changes_in_one_process_is_seen(tmp_path: Path, cache: Path, original: PreTrainedModel) -> None:
    file, tokenizer = tmp_path / "tiny.gguf", tiny_llama.make_tokenizer(tmp_path)
    write_gguf(file, original, tokenizer)
    stat, first = file.stat(), converted(file)
    other = tiny_llama.make_classifier(seed=1).model
    write_gguf(file, other, tokenizer)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    second = converted(file)
    assert second != first
    restored = dict(AutoModel.from_pretrained(second).named_parameters())
    assert all(torch.equal(restored[name], weight) for name, weight in other.named_parameters())


@pytest.mark.slow  # two new processes import torch
def test_two_processes_that_convert_at_once_get_the_same_whole_directory(file: Path, cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(converted, [file, file])
    assert first == second
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in first.iterdir()}
    assert [path for path in first.parent.iterdir() if path.is_dir()] == [first]  # nothing half-made is left
