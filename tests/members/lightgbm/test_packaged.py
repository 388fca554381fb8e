"""The member that ships: small, loadable, without a side, and of sound judgement where the answer is plain."""

import csv
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml

from lmsys_ray.members.lightgbm.scorer import LightGBMScorer
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.protocol import CONVERSATIONS
from lmsys_ray.metrics import Estimate, class_shares, estimate_metrics
from lmsys_ray.storage.packaged import DIRECTORY
from tests.members.lightgbm.member import PACKAGED

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
    return scorer.score(
        pa.table([np.arange(len(pairs)), [*map(str, range(len(pairs)))], prompts, *cells], schema=CONVERSATIONS)
    ).probabilities


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


CLASSES = ["a", "b", "tie"]
HELD_OUT = {"out_of_fold.csv": "metrics.json", "left_out_sources.csv": "left_out_sources.json"}
"""The probabilities of rows held out, and the figures made of them."""


class Rows:
    """The columns of a file of held-out probabilities."""

    def __init__(self, file: str) -> None:
        with (PACKAGED / file).open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        self.ids = [row["id"] for row in rows]
        self.probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])
        self.labels = np.array([CLASSES.index(row["label"]) for row in rows])
        self.prompts = np.array([int(row["prompt"]) for row in rows])
        self.folds = np.array([row["fold"] for row in rows])

    def estimate(self, probabilities: np.ndarray, where: np.ndarray | None = None) -> Estimate:
        chosen = np.ones(len(self.ids), bool) if where is None else where
        return estimate_metrics(probabilities[chosen], self.labels[chosen], self.prompts[chosen])


def figures(file: str) -> dict:
    return json.loads((PACKAGED / file).read_text())


def close(found: Estimate, noted: dict) -> bool:
    """Whether the log loss and its interval are those noted, but for the six digits of the probabilities."""
    return found.figures()["log_loss"] == pytest.approx(noted, abs=2e-5)


@pytest.mark.parametrize("file", HELD_OUT)
def test_its_figures_follow_from_its_held_out_probabilities(file: str) -> None:
    rows, noted = Rows(file), figures(HELD_OUT[file])
    assert len(rows.ids) == noted["rows"]["used"] == 6217
    prior = np.empty((6217, 3))
    for name, fold in noted["folds"].items():
        inside = rows.folds == name
        prior[inside] = class_shares(rows.labels[~np.isin(rows.prompts, rows.prompts[inside])])
        own = np.tile(class_shares(rows.labels[inside]), (6217, 1))
        for kind, shares in (("prior", prior), ("own", own)):
            difference = rows.estimate(rows.probabilities, inside) - rows.estimate(shares, inside)
            assert close(difference, fold["difference"][f"lightgbm minus {kind}"])
    assert close(rows.estimate(rows.probabilities), noted["held_out"]["lightgbm"]["log_loss"])
    assert close(rows.estimate(prior), noted["held_out"]["prior"]["log_loss"])


def test_no_source_left_out_is_judged_worse_than_by_the_shares_of_the_others() -> None:
    folds = figures("left_out_sources.json")["folds"]
    assert len(folds) == 5
    assert all(fold["log_loss"]["lightgbm"] < fold["log_loss"]["prior"] - 0.003 for fold in folds.values())
    assert figures("left_out_sources.json")["options"] == figures("metrics.json")["options"] | {
        "fold_column": "source",
        "patience": 0,
    }


def test_the_weight_of_the_llama_member_is_one_that_gains_for_certain() -> None:
    rows = Rows("out_of_fold.csv")
    with (DIRECTORY / "smollm2-135m-lora" / "out_of_fold.csv").open(encoding="utf-8") as lines:
        found = {row["id"]: [float(row[name]) for name in CLASSES] for row in csv.DictReader(lines)}
    llama = np.array([found[identity] for identity in rows.ids])
    preset = yaml.safe_load((DIRECTORY / "presets" / "default.yaml").read_text())
    weight = preset["members"]["llama"]["weight"]
    assert weight + preset["members"]["lightgbm"]["weight"] == 1
    blend = (1 - weight) * rows.probabilities + weight * llama
    gain = (rows.estimate(blend) - rows.estimate(rows.probabilities)).figures()["log_loss"]
    assert gain["high"] < 0
    results = (DIRECTORY.parents[1] / "docs" / "results.md").read_text()
    loss = rows.estimate(blend).figures()["log_loss"]
    assert f"{loss['value']:.4f}** ({loss['low']:.4f} to {loss['high']:.4f})" in results


def test_its_card_says_what_the_figures_say() -> None:
    card = (PACKAGED / "README.md").read_text()
    whole, sources = figures("metrics.json"), figures("left_out_sources.json")
    for noted in (whole, sources):
        for part in ("held_out", "joined"):
            loss = noted[part]["lightgbm"]["log_loss"]
            assert f"{loss['value']:.4f} ({loss['low']:.4f} to {loss['high']:.4f})" in card
    for name, fold in sources["folds"].items():
        (line,) = re.findall(rf"^\| {name} \| \d\.\d.*$", card, re.MULTILINE)
        difference = fold["difference"]["lightgbm minus prior"]
        assert f"| {fold['log_loss']['lightgbm']:.3f} |" in line
        assert f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})" in line
