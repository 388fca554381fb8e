"""Files of models and adapters that were cut or crafted: a sentence each, never a traceback or a wrong number."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmsys_ray.checkpoints import patterns
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.import_state_dict import LoraSettings, import_state_dict
from tests.checkpoints.test_model_directory import ROWS, sentence
from tests.members.classifier.test_scorer import scorer

DEEP = "[" * 100_000 + "]" * 100_000
MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "scoring.json")
WILD: list[Any] = [
    *(None, True, -1, 0, 1, 3, 10**9, 10**18, 1e308, float("nan"), "", "x", "../x", "\0", [], [1], ["x"], {}, {"a": 1}),
    *("float99", "org/kernel", [[1, 2], [3]], {"content": 5}, {"rope_type": "nope"}, 10**40),
]


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("name", MODEL_FILES[:-1])
@pytest.mark.parametrize("content", [DEEP, "{", "[]", '{"a":' * 5000])
def test_a_file_that_is_no_mapping_is_one_sentence(model: str, copied: Path, name: str, content: str) -> None:
    shutil.copytree(model, copied)
    (copied / name).write_text(content)
    assert sentence(copied).startswith("model: ")


def test_a_file_that_scoring_has_no_use_for_does_not_matter(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    (copied / "generation_config.json").write_text(DEEP)
    assert np.array_equal(scorer(copied).score(ROWS).probabilities, scorer(model).score(ROWS).probabilities)


@pytest.mark.parametrize("name", ["adapter_config.json", "scoring.json"])
def test_a_deep_file_of_an_adapter_is_one_sentence(model: str, adapter: str, copied: Path, name: str) -> None:
    shutil.copytree(adapter, copied)
    (copied / name).write_text(DEEP)
    assert f"{name} of {copied} is not JSON" in sentence(Path(model), adapter=str(copied))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_file_without_permission_is_one_sentence(model: str, copied: Path, name: str) -> None:
    shutil.copytree(model, copied)
    (copied / name).touch()
    (copied / name).chmod(0)
    assert sentence(copied).startswith("model: ")


def test_a_model_deeper_than_any_is_refused_before_it_is_built(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    began = time.perf_counter()
    for key, value in (("num_hidden_layers", 10**6), ("head_dim", 10**9), ("vocab_size", 10**12)):
        shutil.copy(Path(model) / "config.json", copied)
        edited(copied / "config.json", lambda content, key=key, value=value: content.update({key: value}))
        assert f"{key} = 1e+" in sentence(copied)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"r": 10**9}, "have the rank 4 where adapter_config.json says 1000000000"),
        ({"rank_pattern": {"v_proj": 10**9}}, "has the rank 1000000000 in its adapter_config.json, which none of its"),
        ({"r": 10**15, "rank_pattern": {"o_proj": 4, "v_proj": 4}}, "which none of its weights has; restore the file"),
    ],
)
def test_a_rank_that_no_weight_has_takes_no_memory(
    model: str, adapter: str, copied: Path, change: dict[str, Any], expected: str
) -> None:
    shutil.copytree(adapter, copied)
    edited(copied / "adapter_config.json", lambda content: content.update(change))
    assert expected in sentence(Path(model), adapter=str(copied))


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": r"(([a-z._0-9]+)+)+#"},
        {"rank_pattern": {r"([a-z._0-9]+)+#": 4}},
        {"exclude_modules": r"(\w|\w\w|\.)+#"},
    ],
)
def test_a_pattern_that_takes_for_ever_is_refused(
    model: str, adapter: str, copied: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(adapter, copied)
    edited(copied / "adapter_config.json", lambda content: content.update(change))
    monkeypatch.setattr(patterns.check_patterns, "__defaults__", (2.0,))
    text = sentence(Path(model), adapter=str(copied))
    assert f"comparing {next(iter(change))} of {copied} with the names of the model's modules takes longer" in text


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 9000, "x" * 10_001, "("])
def test_a_pattern_that_cannot_be_compiled_is_refused(model: str, adapter: str, copied: Path, pattern: str) -> None:
    shutil.copytree(adapter, copied)
    edited(copied / "adapter_config.json", lambda content: content.update(target_modules=pattern))
    assert "target_modules = " in sentence(Path(model), adapter=str(copied))


def test_a_pattern_of_every_day_scores_as_the_list(model: str, adapter: str, copied: Path) -> None:
    shutil.copytree(adapter, copied)
    pattern = r".*\.(?:self_attn|attention)\.(o_proj|v_proj)"
    edited(copied / "adapter_config.json", lambda content: content.update(target_modules=pattern))
    assert np.array_equal(
        scorer(model, adapter=str(copied)).score(ROWS).probabilities,
        scorer(model, adapter=adapter).score(ROWS).probabilities,
    )


@pytest.mark.parametrize(
    "change", [{"model_type": "bert"}, {"hidden_size": "x"}, {"hidden_act": "nope"}, DEEP, {"num_hidden_layers": 10**7}]
)
def test_an_import_checks_the_config_of_its_base(model: str, copied: Path, tmp_path: Path, change: Any) -> None:
    import torch

    torch.save(
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.default.weight": torch.ones(2, 2)}, tmp_path / "s"
    )
    shutil.copytree(model, copied)
    if isinstance(change, str):
        (copied / "config.json").write_text(change)
    else:
        edited(copied / "config.json", lambda content: content.update(change))
    with pytest.raises(UsageError) as caught:
        import_state_dict(tmp_path / "s", str(copied), LoraSettings(), tmp_path / "out")
    assert "\n" not in str(caught.value)


def _damage(file: Path, generator: random.Random) -> None:
    """Cuts a file, flips bits in it, or puts something wild under one of its keys."""
    whole = file.read_bytes()
    way = generator.random()
    if way < 0.15:
        file.write_bytes(whole[: generator.randrange(len(whole) + 1)])
    elif way < 0.3 or file.suffix != ".json":
        end = 8 + int.from_bytes(whole[:8], "little") if file.suffix == ".safetensors" else len(whole)
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 1, 4))):
            damaged[generator.randrange(min(end, len(whole)))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
    else:
        content: Any = json.loads(whole)
        part = content
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = generator.choice(keys)
            if isinstance(part[key], dict | list) and part[key] and generator.random() < 0.7:
                part = part[key]
                continue
            part[key] = generator.choice(WILD)
            break
        file.write_text(json.dumps(content))


def fuzz(model: str, adapter: str, folder: Path, seeds: range) -> int:
    """Loads so many damaged copies; returns how many loaded.

    Their numbers must be those of the files as they were, unless a config changed, which may mean another model.
    """
    loaded = 0
    undamaged = scorer(model, adapter=adapter).score(ROWS).probabilities
    for seed in seeds:
        generator = random.Random(seed)
        copies = [Path(shutil.copytree(source, folder / f"{seed}-{n}")) for n, source in enumerate((model, adapter))]
        (copies[1] / "scoring.json").write_text('{"layers": 2, "template": "notebook", "dtype": "float32"}')
        files = [
            copy / name for copy, names in zip(copies, (MODEL_FILES, ADAPTER_FILES), strict=True) for name in names
        ]
        file = generator.choice([file for file in files if file.is_file()])
        _damage(file, generator)
        try:
            found = scorer(copies[0], adapter=str(copies[1]), layers=2).score(ROWS).probabilities
        except UsageError as error:
            said = str(error)
        else:
            said = ""
            loaded += 1
            assert np.isfinite(found).all(), seed
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5, err_msg=str(seed))
            if file.suffix == ".safetensors":
                np.testing.assert_allclose(found, undamaged, atol=1e-6, err_msg=str(seed))
        assert "\n" not in said, seed
        assert len(said) < 1000, seed
        for copy in copies:
            shutil.rmtree(copy)
    return loaded


def test_damaged_files_are_one_sentence_or_load(model: str, adapter: str, tmp_path: Path) -> None:
    fuzz(model, adapter, tmp_path, range(60))


@pytest.mark.soak
def test_many_damaged_files_are_one_sentence_or_load(model: str, adapter: str, tmp_path: Path) -> None:
    fuzz(model, adapter, tmp_path, range(1000, 6000))
