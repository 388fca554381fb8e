"""What the tests of fine-tuning share."""

from pathlib import Path

import pytest

from tests.tiny_llama import make_backbone


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama without a head."""
    return make_backbone(tmp_path_factory.mktemp("base"))
