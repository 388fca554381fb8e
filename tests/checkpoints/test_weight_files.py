"""Weights lie in safetensors files of the model's own directory, whose headers hold; pickles only where trusted."""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lmsys_ray.checkpoints.weight_files import INDEX, header, tensors
from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.scoring.fingerprint import fingerprint
from tests.checkpoints.test_model_directory import ROWS, sentence, sharded
from tests.members.classifier.test_scorer import scorer


class Harmful:
    """What a pickle may do: run a command."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._file),)


def pickled(source: str, target: Path, name: str, pickle_name: str) -> Path:
    """Copies a model or an adapter with its weights in a pickle."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(name))
    torch.save(load_file(Path(source) / name), target / pickle_name)
    return target


def test_weights_in_a_pickle_are_read_where_they_are_trusted_alone(model: str, copied: Path) -> None:
    pickled(model, copied, "model.safetensors", "pytorch_model.bin")
    text = sentence(copied)
    assert text.startswith(f"model: {copied} holds its weights in a pickle (pytorch_model.bin), which could run code")
    assert "save_pretrained(NEW)" in text
    assert "--trust-pickle" in text
    assert np.array_equal(
        scorer(copied, trust_pickle=True).score(ROWS).probabilities, scorer(model).score(ROWS).probabilities
    )


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00002.bin", "model.pt", "weights.pth", "pytorch_model.bin"])
def test_every_name_of_a_pickle_is_known(model: str, copied: Path, name: str) -> None:
    assert f"holds its weights in a pickle ({name})" in sentence(pickled(model, copied, "model.safetensors", name))


def test_pickles_beside_safetensors_are_not_read(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    torch.save({"model.norm.weight": Harmful(copied / "harm")}, copied / "pytorch_model.bin")
    for trust in (False, True):
        assert np.array_equal(
            scorer(copied, trust_pickle=trust).score(ROWS).probabilities, scorer(model).score(ROWS).probabilities
        )
    assert not (copied / "harm").exists()


def test_a_trusted_pickle_still_runs_no_code(model: str, adapter: str, tmp_path: Path) -> None:
    for source, name, pickle_name in (
        (model, "model.safetensors", "pytorch_model.bin"),
        (adapter, "adapter_model.safetensors", "adapter_model.bin"),
    ):
        copy = pickled(source, tmp_path / pickle_name, name, pickle_name)
        torch.save({"a": Harmful(tmp_path / "harm")}, copy / pickle_name)
        named = {"model": str(copy)} if source is model else {"model": model, "adapter": str(copy)}
        with pytest.raises(UsageError, match="cannot be read"):
            scorer(**named, trust_pickle=True)
    assert not (tmp_path / "harm").exists()


def test_an_adapter_in_a_pickle_is_read_where_it_is_trusted_alone(model: str, adapter: str, copied: Path) -> None:
    pickled(adapter, copied, "adapter_model.safetensors", "adapter_model.bin")
    text = sentence(Path(model), adapter=str(copied))
    assert "holds a pickle (adapter_model.bin), which could run code" in text
    assert text.endswith("or add --trust-pickle")
    trusted = scorer(model, adapter=str(copied), trust_pickle=True)
    assert np.array_equal(trusted.score(ROWS).probabilities, scorer(model, adapter=adapter).score(ROWS).probabilities)


def test_training_reads_no_pickle_either(model: str, copied: Path) -> None:
    pickled(model, copied, "model.safetensors", "pytorch_model.bin")
    named = {"input": ["x"], "output": "x", "model": str(copied)}
    with pytest.raises(UsageError, match="holds its weights in a pickle"):
        build_classifier(TrainingSettings(**named), torch.device("cpu"))
    build_classifier(TrainingSettings(**named, trust_pickle=True), torch.device("cpu"))


@pytest.mark.parametrize("changes", [{"transformers_weights": "x.safetensors"}, {"attn_implementation": "org/kernel"}])
def test_training_takes_no_other_files_nor_code(model: str, copied: Path, changes: dict[str, str]) -> None:
    directory = sharded(model, copied)
    named = {"input": ["x"], "output": "x", "model": str(directory)}
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises(UsageError, match=next(iter(changes))):
        build_classifier(TrainingSettings(**named), torch.device("cpu"))
    (directory / INDEX).write_text('{"weight_map": {"score.weight": "../outside.safetensors"}}')
    with pytest.raises(UsageError, match="not a safetensors file of this directory"):
        build_classifier(TrainingSettings(**named), torch.device("cpu"))


def test_the_flag_sets_each_llama_member_and_is_no_part_of_a_run(model: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prompt,response_a,response_b\n1,a,b,c\n")
    named = ["--input", str(tmp_path / "a.csv"), "--set", f"members.llama.model={model}"]
    plain, trusted = (score_settings(parser().parse_args([*named, *flag])) for flag in ([], ["--trust-pickle"]))
    members = [settings.members["llama"] for settings in (plain, trusted)]
    assert [isinstance(m, ClassifierSettings) and m.trust_pickle for m in members] == [False, True]
    assert fingerprint(plain) == fingerprint(trusted)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/x.safetensors", "a/b.safetensors", "model.bin", "..", 3]
)
def test_an_index_names_files_of_its_own_directory_alone(model: str, tmp_path: Path, name: object) -> None:
    directory = sharded(model, tmp_path / "shards")
    if isinstance(name, str) and ".." in name:
        shutil.copy(Path(model) / "model.safetensors", tmp_path / "outside.safetensors")
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["score.weight"] = name
    (directory / INDEX).write_text(json.dumps(index))
    text = sentence(directory)
    assert text.startswith(f"model: the weights of {directory} cannot be read")
    if isinstance(name, str):
        assert f"names {name!r}, which is not a safetensors file of this directory" in text


def test_a_config_names_no_other_file_of_weights(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    shutil.copy(copied / "model.safetensors", copied / "other.safetensors")
    content = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**content, "transformers_weights": "other.safetensors"}))
    assert "transformers_weights = 'other.safetensors'" in sentence(copied)


@pytest.mark.parametrize("value", ["org/kernel", "org/kernel@main:attention", 3, ["eager"], {"": "org/kernel"}])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_config_names_no_code_of_the_hub(model: str, copied: Path, key: str, value: object) -> None:
    shutil.copytree(model, copied)
    content = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**content, key: value}))
    assert sentence(copied).startswith("model: ")


def written(file: Path, content: object, weights: bytes = b"") -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return file


def tensor(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": tensor("F33")}, "a of x.safetensors has the unknown type 'F33'"),
        ({"a": tensor(["F32"])}, "has the unknown type"),
        ({"a": tensor(shape=[-2])}, "has the shape"),
        ({"a": tensor(shape=[2.0])}, "has the shape"),
        ({"a": tensor(shape=[3])}, "where its type and shape take 12 bytes"),
        ({"a": tensor(shape=[1 << 40, 1 << 40])}, "where its type and shape take"),
        ({"a": tensor(offsets=[8, 0])}, "where its type and shape take 8 bytes"),
        ({"a": tensor(offsets=[4, 12])}, "overlap or leave a gap at byte 0"),
        ({"a": tensor(offsets=[0, 8, 8])}, "has the shape"),
        ({"a": tensor(), "b": tensor(shape=[1], offsets=[4, 8])}, "overlap or leave a gap at byte 8"),
        ({"a": tensor(), "b": tensor(offsets=[8, 16])}, "holds 8 bytes of weights where its header says 16"),
        ({"a": tensor(shape=[1], offsets=[0, 4])}, "holds 8 bytes of weights where its header says 4"),
        ({"a": 3}, "no type and shape"),
        ([1], "is not a mapping"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": 3}', "a name occurs twice"),
        (b"[" * 100_000, "recursion|nested|overflow"),
        (b"{,,", "Expecting"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_header_that_contradicts_itself_or_the_file_is_refused(
    tmp_path: Path, content: object, expected: str
) -> None:
    file = written(tmp_path / "x.safetensors", content, b"\0" * 8)
    with pytest.raises((ValueError, RecursionError), match=expected):
        header(file)


@pytest.mark.parametrize("length", [9, 1 << 40, (1 << 64) - 1, 1, 0])
def test_a_header_larger_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ValueError, match=f"says that its header has {length}"):
        header(tmp_path / "x.safetensors")


def test_headers_say_what_the_library_says(model: str, tmp_path: Path) -> None:
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16, torch.float64, torch.int64]
    kinds += [torch.int8, torch.uint8, torch.bool, torch.int32, torch.int16]
    weights = {str(kind): torch.zeros(2, 3, dtype=kind) for kind in kinds} | {
        "none": torch.zeros(0),
        "one": torch.ones(()),
    }
    save_file(weights, tmp_path / "x.safetensors", metadata={"format": "pt"})
    for file in (tmp_path / "x.safetensors", Path(model) / "model.safetensors"):
        found = header(file)
        with safe_open(file, "pt") as opened:
            views = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            assert {n: (t.dtype, t.shape) for n, t in found.items()} == {
                n: (v.get_dtype(), v.get_shape()) for n, v in views.items()
            }
    assert {name: found.bytes for name, found in tensors(Path(model), "x").items()} == {
        name: weight.nbytes for name, weight in load_file(Path(model) / "model.safetensors").items()
    }
