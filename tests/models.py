"""Tiny models that tests share, made once a session."""

from pathlib import Path

import pytest
from hypothesis import settings

# A first example that builds a tokenizer, or a machine under load, takes longer than any fixed time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny 3-label Llama with its head."""
    from tests import tiny_llama

    return str(tiny_llama.make_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model without a head."""
    from tests import tiny_llama

    return str(tiny_llama.make_backbone(tmp_path_factory.mktemp("backbone")))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny 3-label Qwen2, whose projections have biases."""
    from tests import tiny_llama

    return str(tiny_llama.make_model(tmp_path_factory.mktemp("qwen"), "qwen2"))


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LoRA adapter with a head for `model` and `backbone`."""
    from tests import tiny_llama

    return str(tiny_llama.make_adapter(tmp_path_factory.mktemp("adapter")))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory to put a damaged copy of a model or an adapter in."""
    return tmp_path / "copy"
