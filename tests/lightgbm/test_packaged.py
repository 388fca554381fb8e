"""The member that ships: small, loadable, without a side, and of sound judgement where the answer is plain."""

import json

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.config import LightGBMSettings
from lmsys_ray.members.base import CONVERSATIONS
from lmsys_ray.members.lightgbm import LightGBMScorer
from lmsys_ray.resources import DIRECTORY

GOOD = (
    "Soak the beans overnight, then rinse them.\n\n1. Fry an onion in oil until it is soft.\n"
    "2. Add the beans, a bay leaf and enough water to cover them.\n3. Simmer for about an hour, and salt at the end."
)
PROMPT = "How do I cook dried beans so that they come out soft?"


@pytest.fixture(scope="module")
def scorer() -> LightGBMScorer:
    return LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts="packaged:lightgbm"), "auto")


def scores(scorer: LightGBMScorer, *pairs: tuple[str, str]) -> np.ndarray:
    cells = [[json.dumps([text]) for text in column] for column in zip(*pairs, strict=True)]
    prompts = [json.dumps([PROMPT])] * len(pairs)
    return scorer.score(pa.table([np.arange(len(pairs)), prompts, *cells], schema=CONVERSATIONS))


def test_it_is_small() -> None:
    files = [path for path in (DIRECTORY / "lightgbm").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert {"README.md", "metadata.json", "metrics.json"} <= {path.name for path in files}


@pytest.mark.parametrize("bad", ["", "beans beans beans beans beans beans beans beans", "How do I cook dried beans"])
def test_a_helpful_answer_beats_a_useless_one_on_either_side(scorer: LightGBMScorer, bad: str) -> None:
    first, second = scores(scorer, (GOOD, bad), (bad, GOOD))
    assert first[0] > 0.6 > 0.2 > first[1]
    assert np.array_equal(first, second[[1, 0, 2]])


def test_equal_answers_are_most_likely_a_tie(scorer: LightGBMScorer) -> None:
    (same,) = scores(scorer, (GOOD, GOOD))
    assert same[0] == same[1]
    assert same.argmax() == 2
