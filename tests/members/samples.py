"""A tiny member of each kind, for the tests that run over all kinds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings


@dataclass(frozen=True)
class Sample:
    """How tests make a member of a kind."""

    make: Callable[[Path], dict[str, Any]]
    """Writes its files into a folder and returns the settings that name them, each its own file or directory."""
    settings: Mapping[str, Any]
    """Further settings of the member."""
    changes: Mapping[str, Any]
    """For each setting but kind and artefacts another value that is accepted."""
    weights: str = ""
    """The file below an artefact whose content is changed; none where each artefact is a file."""


def _lightgbm(folder: Path) -> dict[str, Any]:
    from tests.members.lightgbm.fitted import fit

    fitted = fit()
    vocabularies = (VectorizerSettings.of(fitted.cvec), VectorizerSettings.of(fitted.ccvec))
    (folder / "trees").mkdir()
    save(Artifacts("notebook", vocabularies, [model.booster_ for model in fitted.models]), folder / "trees")
    return {"artifacts": str(folder / "trees")}


def _classifier(folder: Path) -> dict[str, Any]:
    from tests.tiny_llama import make_adapter, make_model

    return {"model": str(make_model(folder / "model")), "adapter": str(make_adapter(folder / "adapter"))}


CHAT = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)


def _reward(folder: Path) -> dict[str, Any]:
    from tests.tiny_llama import make_adapter, make_model

    model, adapter = make_model(folder / "model", num_labels=1), make_adapter(folder / "adapter", num_labels=1)
    return {"model": str(model), "adapter": str(adapter), "chat_template": CHAT}


def _judge(folder: Path) -> dict[str, Any]:
    from tests.tiny_llama import make_language_adapter, make_language_model

    model, adapter = make_language_model(folder / "model"), make_language_adapter(folder / "adapter")
    return {"model": str(model), "adapter": str(adapter), "chat_template": CHAT}


def _shared_encoder(folder: Path) -> dict[str, Any]:
    from tests.tiny_encoders import make_shared_encoder

    return {"model": str(make_shared_encoder(folder / "model"))}


_OF_LANGUAGE_MODELS = {
    "weight": 0.5,
    "layers": 1,
    "quantization": "int8_dynamic",
    "dtype": "bfloat16",
    "max_length": 700,
    "turns": "last",
    "padding": "longest",
    "batch_tokens": 512,
    "device": "gpu",
    "replicas": 2,
    "max_replicas": 3,
    "gpus_per_replica": 0.5,
    "threads": 2,
    "append_eos": True,
    "special_tokens": "parse",
    "trust_pickle": True,
}
"""Another value of each setting that all kinds with a language model share."""

_OF_CHATS = {"chat_template": f"{CHAT} ", "system": "You are careful."}


def _scores(folder: Path) -> dict[str, Any]:
    """A file with probabilities of all rows that the tests score, in another order and among others."""
    rows = np.random.default_rng(7).permutation(40)
    drawn = np.random.default_rng(8).dirichlet([1, 1, 1], len(rows))
    lines = [f"{row},{','.join(map(repr, values))}" for row, values in zip(rows, drawn.tolist(), strict=True)]
    (folder / "scores.csv").write_text("\n".join(["id,winner_model_a,winner_model_b,winner_tie", *lines, ""]))
    return {"path": str(folder / "scores.csv")}


SAMPLES = {
    "classifier": Sample(
        _classifier,
        {"dtype": "float32", "max_length": 96, "device": "cpu", "threads": 1},
        {
            "weight": 0.5,
            "swap": True,
            "layers": 1,
            "quantization": "int8_dynamic",
            "dtype": "bfloat16",
            "text": "notebook",
            "template": "labelled",
            "max_length": 64,
            "truncation": "balanced",
            "padding": "longest",
            "batch_tokens": 512,
            "device": "gpu",
            "replicas": 2,
            "max_replicas": 3,
            "gpus_per_replica": 0.5,
            "threads": 2,
            "append_eos": True,
            "special_tokens": "text",
            "labels": ["tie", "a", "b"],
            "head": "linear",
            "trust_pickle": True,
            "turns": "last",
        },
        "*.safetensors",
    ),
    "reward": Sample(
        _reward,
        {"dtype": "float32", "max_length": 256, "device": "cpu", "threads": 1},
        {
            **_OF_LANGUAGE_MODELS,
            **_OF_CHATS,
            "link": "rao_kupper",
            "scale": 2.0,
            "tie": 0.5,
            "head": "linear",
            "sign": -1,
            "input": "chat",
            "add_generation_prompt": True,
        },
        "*.safetensors",
    ),
    "judge": Sample(
        _judge,
        {"dtype": "float32", "max_length": 800, "device": "cpu", "threads": 1},
        {
            **_OF_LANGUAGE_MODELS,
            **_OF_CHATS,
            "swap": False,
            "prompt": "{prompt} {response_a} {response_b} Which?",
            "verdicts": {"a": "a", "b": "b", "tie": "c"},
            "prefix": "So: ",
        },
        "*.safetensors",
    ),
    "shared_encoder": Sample(
        _shared_encoder,
        {"dtype": "float32", "max_length": 64, "device": "cpu", "threads": 1},
        {
            **{key: value for key, value in _OF_LANGUAGE_MODELS.items() if key not in ("layers", "quantization")},
            "max_length": 48,
            "padding": "max_length",
            "preset": "kerasnlp",
            "template": "{prompt} {response}?",
            "truncation": "right",
            "turns": "first",
            "swap": True,
        },
        "*.safetensors",
    ),
    "lightgbm": Sample(_lightgbm, {}, {"weight": 0.5, "workers": 2}, "booster-00.txt"),
    "scores": Sample(
        _scores,
        {},
        {
            "weight": 0.5,
            "link": "rao_kupper",
            "scale": 2.0,
            "tie": 0.3,
            "member": "llama",
            "columns": {"tie": "winner_model_a"},
            "workers": 2,
        },
    ),
}
"""By kind; a kind without a sample fails the tests."""
