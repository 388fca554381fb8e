"""An adapter of which PEFT would drop or change a part, or whose files are damaged, is refused with one sentence."""

import dataclasses
import math
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest

from lmsys_ray.checkpoints.adapter_config import REFUSED, WITHOUT_EFFECT, AdapterConfig, lora_config
from lmsys_ray.checkpoints.loading import load_model
from lmsys_ray.checkpoints.wanted import Wanted
from tests.checkpoints.adapter_reference import PLAIN, change_config, refused, settings_of


def content(**changes: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", **PLAIN, **changes}


@pytest.mark.parametrize("way", ["pissa_niter_16", "corda", "loftq", "lora_ga"])
def test_a_start_that_no_load_repeats_is_refused(way: str) -> None:
    sentence = refused(lambda: lora_config(content(init_lora_weights=way), "x"))
    assert f"init_lora_weights = {way!r} of x changed the base model" in sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_replication", [[0, 2], [1, 2]]),
        ("alora_invocation_tokens", [5, 6]),
        ("use_qalora", True),
        ("arrow_config", {"top_k": 3}),
        ("megatron_config", {"hidden_size": 32}),
    ],
)
def test_a_method_that_is_not_supported_is_refused(key: str, value: Any) -> None:
    assert f"{key} = {value!r} of x is not supported" in refused(lambda: lora_config(content(**{key: value}), "x"))


def test_every_key_of_peft_is_decided_upon() -> None:
    decided = AdapterConfig.model_fields.keys() | WITHOUT_EFFECT | REFUSED.keys() | {"peft_type"}
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} == decided


def test_defaults_are_those_of_peft() -> None:
    ours, theirs = lora_config({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "x"), peft.LoraConfig(task_type="SEQ_CLS")
    theirs.inference_mode = True
    assert ours == theirs


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_an_unknown_key_that_is_off_is_no_fault(value: Any) -> None:
    assert lora_config(content(key_of_a_later_version=value), "x").r == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_of_a_later_version": True}, "key_of_a_later_version = True"),
        ({"key_of_a_later_version": 0.5}, "key_of_a_later_version = 0.5"),
        ({"a\nb": 1}, r"'a\nb' = 1"),
        ({"use_other_scaling": "sqrt"}, "use_other_scaling = 'sqrt'"),
        ({"kasa_config": {"beta": 1e-4, "delta": 2}}, "kasa_config.delta = 2"),
    ],
)
def test_an_unknown_key_is_refused(changes: dict[str, Any], said: str) -> None:
    assert f"{said} of x is a key that this version does not know" in refused(
        lambda: lora_config(content(**changes), "x")
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("r", value) for value in ("8", 0, -4, 4.5, True, None)],
        *[("lora_alpha", value) for value in ("16", math.nan, math.inf, [16], None)],
        *[("target_modules", value) for value in (3, [3], "(", {"q_proj": 1})],
        *[("alpha_pattern", value) for value in ({"q_proj": math.nan}, {"(": 4}, [4], {"q_proj": "4"})],
        *[("rank_pattern", value) for value in ({"q_proj": 0}, {"q_proj": 1.5}, "q_proj")],
        *[("layers_to_transform", value) for value in (-1, ["1"], 0.5)],
        *[("trainable_token_indices", value) for value in ([-1], ["a"], 5)],
        *[("bias", value) for value in ("some", True)],
        ("init_lora_weights", 3),
        ("modules_to_save", "score"),
        ("use_dora", "yes"),
        ("kasa_config", True),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, value: Any) -> None:
    sentence = refused(lambda: lora_config(content(**{key: value}), "x"))
    assert sentence.startswith(f"adapter: {key} = {value!r} in adapter_config.json of x is wrong")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init_lora_weights": "magic"}, "init_lora_weights = 'magic' of x is unknown"),
        ({"layers_pattern": "layers"}, "adapter_config.json of x is wrong"),
        ({"kasa_config": {"beta": -1}}, "adapter_config.json of x is wrong"),
        ({"kasa_config": {"beta": "much"}}, "adapter_config.json of x is wrong"),
        ({"peft_type": "ADALORA"}, "peft_type = 'ADALORA' of x; only LoRA is supported"),
        ({"peft_type": None}, "peft_type = None of x"),
        ({"task_type": "CAUSAL_LM"}, "task_type = 'CAUSAL_LM' of x, not for classification"),
        ({"task_type": None}, "task_type = None of x"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(lambda: lora_config(content(**changes), "x"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 6}, "have the rank 4 where adapter_config.json says 6"),
        ({"r": 10**12}, "have the rank 4 where adapter_config.json says 1000000000000"),
        ({"lora_alpha": 0}, "lora_alpha of .* is 0, so it changes nothing"),
        ({"alpha_pattern": {"v_proj": 0, "o_proj": 0.0}}, "lora_alpha of .* is 0, so it changes nothing"),
        ({"trainable_token_indices": [400]}, "has 400 where the model embeds 400 tokens"),
        ({"target_modules": ["other"]}, "does not fit the model"),
        ({"use_dora": True, "kasa_config": {}}, "does not fit the model"),
        ({"layers_to_transform": [7]}, "does not fit the model"),
        ({"target_modules": ["model"]}, "does not fit the model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    model: str, adapter: str, copied: Path, changes: dict[str, Any], said: str
) -> None:
    shutil.copytree(adapter, copied)
    change_config(copied, **changes)
    assert re.search(said, refused(lambda: load_model(settings_of(model, copied), Wanted.three_labels())))


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("share", [0, 0.0005, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(model: str, adapter: str, copied: Path, file: str, share: float) -> None:
    shutil.copytree(adapter, copied)
    whole = (copied / file).read_bytes()
    (copied / file).write_bytes(whole[: int(len(whole) * share)])
    assert file in refused(lambda: load_model(settings_of(model, copied), Wanted.three_labels()))


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_that_is_missing_is_refused(model: str, adapter: str, copied: Path, file: str) -> None:
    shutil.copytree(adapter, copied)
    (copied / file).unlink()
    assert f"lacks {file}" in refused(lambda: load_model(settings_of(model, copied), Wanted.three_labels()))


@pytest.mark.parametrize(
    "text", [b"[]", b"3", b"null", b"\xff\xfe{", b"[" * 100_000, b"{}", b'{"peft_type": ["LORA"]}']
)
def test_a_config_that_is_no_mapping_is_refused(model: str, adapter: str, copied: Path, text: bytes) -> None:
    shutil.copytree(adapter, copied)
    (copied / "adapter_config.json").write_bytes(text)
    refused(lambda: load_model(settings_of(model, copied), Wanted.three_labels()))
