"""Position bias from both orders, against what was put into them."""

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray import CLASSES
from lmsys_ray.ensemble.position_bias import PositionBias


def table(plain: np.ndarray, swapped: np.ndarray) -> pa.Table:
    columns = {f"{name}_plain": plain[:, place] for place, name in enumerate(CLASSES)}
    return pa.table(columns | {f"{name}_swapped": swapped[:, place] for place, name in enumerate(CLASSES)})


def test_a_member_that_prefers_the_first_response_is_found_out() -> None:
    first_wins, b_is_first = [0.7, 0.2, 0.1], [0.2, 0.7, 0.1]
    found = PositionBias()
    for _ in range(2):  # two shards
        found.add(table(np.array([first_wins] * 3), np.array([b_is_first] * 3)))
    assert found.as_dict() == {"rows": 6, "first": 0.7, "second": 0.2, "changed": 1.0}
    assert str(found) == (
        "position bias: the response that stands first is preferred with 70.0%, the second with 20.0%; "
        "100.0% of the verdicts change with the order"
    )


def test_a_member_without_a_position_is_acquitted() -> None:
    both = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    found = PositionBias()
    found.add(table(both, both))
    figures = found.as_dict()
    assert figures["first"] == pytest.approx(figures["second"])
    assert figures["changed"] == 0
