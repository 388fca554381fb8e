"""Verdicts against transformers' language model, one row at a time."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lmsys_ray.members.judge.encoder import verdict_ids
from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.registry import kind_of, validated
from tests.checkpoints.test_heads import LANGUAGE_MODELS
from tests.members.reward.test_scorer import fitting, turns
from tests.members.samples import CHAT
from tests.tiny_gguf import write_gguf
from tests.tiny_llama import make_tokenizer, save

QUESTION = "{prompt} ## {response_a} ## {response_b} ## Which one?"


def settings_of(model: Path, **changes: Any) -> Any:
    values = {"model": str(model), "dtype": "float32", "device": "cpu", "max_length": 512, "chat_template": CHAT}
    return validated({"kind": "judge", "prompt": QUESTION, **values, **changes})


def scored(model: Path, rows: pa.Table, **changes: Any) -> Scores:
    settings = settings_of(model, **changes)
    kind = kind_of(settings)
    encoder = kind.encoder(settings, "auto")
    assert encoder
    scores: Scores = kind.scorer(settings, "auto").score(encoder.encode(rows))
    return scores


def make(folder: Path, name: str) -> Any:
    torch.manual_seed(9)
    config = LANGUAGE_MODELS[name]
    return save(AutoModelForCausalLM.from_config(config), folder)


def asked(row: dict[str, str]) -> str:
    texts = {name: "\n\n".join(turns(row[name])) for name in ("prompt", "response_a", "response_b")}
    return QUESTION.format(**texts)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2, capped", "cohere, scaled", "phi, with a bias"])
def test_verdicts_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    LANGUAGE_MODELS[name].max_position_embeddings = 512
    model, rows = make(tmp_path, name), fitting(5)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = verdict_ids(settings_of(tmp_path))
    assert {word: [tokenizer.decode([i]) for i in found] for word, found in ids.items()}["a"][0] == "A"
    scores = scored(tmp_path, rows)
    for place, row in enumerate(rows.to_pylist()):
        messages = [{"role": "user", "content": asked(row)}]
        given = tokenizer.apply_chat_template(
            messages, chat_template=CHAT, add_generation_prompt=True, return_dict=False
        )
        with torch.inference_mode():
            logits = model(torch.tensor([given])).logits[0, -1].double()
        summed = torch.stack([torch.logsumexp(logits[found], 0) for found in ids.values()])
        assert scores.probabilities is not None
        np.testing.assert_allclose(scores.probabilities[place], torch.softmax(summed, 0).numpy(), atol=1e-5)
        np.testing.assert_allclose([scores.raw[f"logit_{each}"][place] for each in ids], summed.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_gguf_file_with_a_head_of_its_own_judges_as_its_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most models above 3 billion parameters have one; those below often use their embedding twice."""
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    config = copy.deepcopy(LANGUAGE_MODELS[name])
    config.tie_word_embeddings, config.max_position_embeddings = False, 512
    torch.manual_seed(9)
    model = save(AutoModelForCausalLM.from_config(config), tmp_path)
    head = model.lm_head.weight.detach().numpy()
    assert not np.array_equal(head, model.model.embed_tokens.weight.detach().numpy())
    write_gguf(tmp_path / "judge.gguf", model.model, make_tokenizer(tmp_path), tensors={"output.weight": head})
    rows = fitting(5)
    expected, found = scored(tmp_path, rows), scored(tmp_path / "judge.gguf", rows)
    assert found.raw.keys() == expected.raw.keys()
    for key, logits in expected.raw.items():
        np.testing.assert_allclose(found.raw[key], logits, atol=1e-4)


def test_without_a_verdict_for_ties_there_are_none(tmp_path: Path) -> None:
    make(tmp_path, "llama")
    scores = scored(tmp_path, fitting(3), verdicts={"tie": None})
    assert scores.probabilities is not None
    assert (scores.probabilities[:, 2] == 0).all()
    assert (scores.probabilities[:, :2] > 0).all()
    assert scores.raw.keys() == {"logit_a", "logit_b"}
