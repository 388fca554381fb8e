"""What the tests of faults share."""

import pytest

from tests.fault_tolerance.jobs import make_lightgbm


@pytest.fixture(scope="module")
def lightgbm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A small LightGBM member."""
    return make_lightgbm(tmp_path_factory.mktemp("models"))
