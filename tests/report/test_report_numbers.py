"""The figures of a report against other implementations, on all rows at once."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.path import Path as Polygon
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss

from lmsys_ray.evaluation.carried_labels import labels_for
from lmsys_ray.evaluation.evaluate import IN_USE, PRIOR, evaluate
from lmsys_ray.evaluation.labelled_scores import join, settings_of
from lmsys_ray.moments import moment
from lmsys_ray.report.counts import SIDE, Spread
from lmsys_ray.report.facts import Facts, read_facts
from lmsys_ray.report.figures.reliability import wilson
from lmsys_ray.report.gather import Gathered, gather
from lmsys_ray.report.timeline import courses
from lmsys_ray.run_directory.layout import RunDirectory
from tests.report.synthetic import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return make_run(tmp_path_factory.mktemp("numbers") / "run", rows=2000, shard_rows=256)


@pytest.fixture(scope="module")
def facts(run: RunDirectory) -> Facts:
    return read_facts(run)


@pytest.fixture(scope="module")
def gathered(facts: Facts) -> Gathered:
    return gather(facts, texts=False)


@pytest.fixture(scope="module")
def table(run: RunDirectory) -> pa.Table:
    """All rows of the run, with the scores of llama."""
    shards = pa.concat_tables(run.read_shard(number) for number in range(8))
    scores = pa.concat_tables(run.read_scores("llama", number) for number in range(8))
    for name in scores.column_names[1:]:
        shards = shards.append_column(f"llama/{name}", scores[name])
    return shards


def probabilities(table: pa.Table, order: str = "") -> np.ndarray:
    columns = [table[f"llama/{name}{order}"].to_numpy().astype(np.float64) for name in ("a", "b", "tie")]
    return np.column_stack(columns)


def test_log_loss_by_sklearn(gathered: Gathered, table: pa.Table) -> None:
    known = table["label"].is_valid().to_numpy()
    labels = table["label"].drop_null().to_numpy()
    expected = probabilities(table)[known]
    expected /= expected.sum(axis=1, keepdims=True)
    assert gathered.labelled
    found = gathered.labelled.judged()
    assert gathered.labelled.rows == len(labels)
    assert found["llama"].log_loss.values[0] == pytest.approx(log_loss(labels, expected), abs=1e-6)
    assert found["llama"].accuracy == pytest.approx(accuracy_score(labels, expected.argmax(axis=1)))
    shares = np.bincount(labels) / len(labels)
    assert found[PRIOR].log_loss.values[0] == pytest.approx(log_loss(labels, np.tile(shares, (len(labels), 1))))
    sources = np.array(table["source"].to_pylist())[known]
    for part in gathered.labelled.slices(["llama"])["source"]:
        rows = sources == part.name
        assert part.rows == rows.sum()
        assert part.losses["llama"].values[0] == pytest.approx(
            log_loss(labels[rows], expected[rows], labels=[0, 1, 2]), abs=1e-6
        )


def test_the_whole_against_the_command_evaluate(run: RunDirectory, facts: Facts, gathered: Gathered) -> None:
    """It keeps all rows and resamples single prompts; all metrics are the same, and intervals nearly."""
    evaluation = evaluate(join(facts.run, settings_of(run), labels_for(run, None)), facts.settings)
    assert gathered.labelled
    found = gathered.labelled.judged()
    for name in ("llama", "lightgbm", IN_USE, PRIOR):
        values = [found[name].log_loss.values[0], found[name].accuracy, found[name].brier_score]
        assert values == pytest.approx(evaluation.overall[name].values[:3], abs=1e-6)
        assert found[name].calibration_error == pytest.approx(evaluation.overall[name].values[3], abs=2e-3)
        ends = found[name].log_loss.intervals()[:, 0]
        assert ends == pytest.approx(evaluation.overall[name].intervals()[:, 0], abs=2e-3)
    assert gathered.blend
    gain = gathered.labelled.gain(gathered.blend, IN_USE)
    assert gain
    assert gain.is_clear
    best = evaluation.fits["weights and temperature"].estimate - evaluation.fits["nothing"].estimate
    assert gain.difference.values[0] == pytest.approx(best.values[0], abs=2e-3)


def test_the_triangle_by_polygons() -> None:
    rng = np.random.default_rng(1)
    rows = rng.dirichlet([1, 1, 1], 500)
    spread = Spread()
    spread.add(rows)
    assert spread.cells.sum() == 500
    flat = np.column_stack([rows[:, 1] + rows[:, 2] / 2, rows[:, 2]])
    corners = np.array([[0, 0], [1, 0], [0.5, 1]])
    for a, b, down in np.argwhere(spread.cells)[::7]:
        corner = np.array([a, b, SIDE - 1 - down - a - b])
        steps = 1 - np.eye(3) if down else np.eye(3)
        polygon = Polygon(np.array([(corner + step) / SIDE @ corners for step in steps]))
        assert polygon.contains_points(flat).sum() == spread.cells[a, b, down]


def test_the_corners_of_the_triangle_have_a_place() -> None:
    spread = Spread()
    spread.add(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.35, 0.35, 0.3]]))
    assert spread.cells.sum() == 5
    assert [spread.cells[SIDE - 1, 0, 0], spread.cells[0, SIDE - 1, 0], spread.cells[0, 0, 0]] == [1, 1, 1]


def test_agreement_by_scipy(gathered: Gathered, run: RunDirectory, table: pa.Table) -> None:
    other = pa.concat_tables(run.read_scores("lightgbm", number) for number in range(8))
    second = np.column_stack([other[name].to_numpy().astype(np.float64) for name in ("a", "b", "tie")])
    first = probabilities(table)
    found = gathered.agreements["lightgbm", "llama"]
    assert found.same == (first.argmax(axis=1) == second.argmax(axis=1)).sum()
    assert found.divergence == pytest.approx((jensenshannon(first, second, axis=1) ** 2).sum(), rel=1e-4)
    expected = np.corrcoef(first[:, 0] - first[:, 1], second[:, 0] - second[:, 1])[0, 1]
    assert found.correlation() == pytest.approx(expected, abs=1e-6)


def test_tokens_cuts_and_orders(gathered: Gathered, table: pa.Table) -> None:
    tokens = table["llama/tokens"].to_numpy()
    found = gathered.tokens["llama"]
    assert found.largest() == tokens.max()
    assert found.quantile(0.5) == np.quantile(tokens, 0.5, method="inverted_cdf")
    kept = np.column_stack([table[f"llama/kept_{name}"].to_numpy() for name in ("prompt", "a", "b")])
    assert gathered.kept["llama"].cut == (kept < 1).any(axis=1).sum()
    assert list(gathered.kept["llama"].cut_texts.values()) == (kept < 1).sum(axis=0).tolist()
    assert list(gathered.kept["llama"].sums.values()) == pytest.approx(kept.sum(axis=0))
    plain, swapped = probabilities(table, "_plain"), probabilities(table, "_swapped")
    bias = gathered.orders["llama"].bias.as_dict()
    assert bias["first"] == pytest.approx((plain[:, 0].mean() + swapped[:, 1].mean()) / 2, abs=1e-4)
    assert gathered.orders["llama"].grid.sum() == len(table)


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (3, 10), (500, 1000), (7, 7)])
def test_intervals_of_shares_by_scipy(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_timeline_follows_the_history(facts: Facts) -> None:
    (course,) = courses(facts)
    assert [lane.name for lane in course.lanes] == ["driver", "llama", "replica 1, 76%", "replica 2, 76%", "lightgbm"]
    assert course.seconds == 27.0
    assert course.lanes[1].deaths == 2
    assert course.lanes[1].died_at == [20.0, 30.0]
    assert "76% busy" in course.lanes[2].note
    assert len(course.lanes[1].ticks) == 8
    assert [bar.kind for bar in course.lanes[1].bars] == ["pass", "load"]
    steps = len(course.rates["llama"])
    assert course.rates["llama"].sum() * course.seconds / steps == pytest.approx(2000)


def test_a_pause_is_marked_and_later_files_are_no_part_of_a_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=1000, exit_code=None)
    facts = read_facts(run)
    began = moment(facts.manifest.starts[0]["began"])
    assert began
    for number in range(10):
        at = began + 10 + number + 300 * (number > 5)
        os.utime(run.score("llama", number), (at, at))
    (course,) = courses(read_facts(run))
    assert [bar.label for bar in course.lanes[1].bars if bar.kind == "wait"] == ["no shard for 301 s"]
    assert course.seconds == 319
    (ingest,) = course.lanes[0].bars
    assert (ingest.begin, ingest.end) == (4, pytest.approx(4.9))
    assert course.lanes[1].bars[0].begin == ingest.end
    manifest = facts.manifest
    manifest.starts[0] |= {"exit": 0, "seconds": {"total": 30.0}}
    run.write_manifest(manifest)
    (course,) = courses(read_facts(run))
    assert course.seconds == 30
    assert len(course.lanes[1].ticks) == 6
