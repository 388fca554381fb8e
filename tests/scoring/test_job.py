"""The whole job on a local cluster with two pretended GPUs: tiny but real members, real files, second starts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, MixtralConfig

from lmsys_ray.errors import RunError
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.scoring.job import Report, score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.directories import atomic_directory
from tests.members.lightgbm.fitted import fit
from tests.members.lightgbm.texts import conversations
from tests.tiny_llama import SIZES, make_adapter, make_model, make_tokenizer

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "llama")
    make_adapter(folder / "adapter")
    fitted = fit()
    vocabularies = (VectorizerSettings.of(fitted.cvec), VectorizerSettings.of(fitted.ccvec))
    with atomic_directory(folder / "lightgbm") as aside:
        save(Artifacts("notebook", vocabularies, [model.booster_ for model in fitted.models]), aside)
    return folder


def write_input(path: Path, rows: int = 50, ids: Callable[[int], object] = lambda n: n * 7 % 50) -> list[str]:
    table = conversations(rows, seed=2).to_pylist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for n, row in enumerate(table):
            writer.writerow([ids(n), row["prompt"], row["response_a"], row["response_b"]])
    return [str(ids(n)) for n in range(rows)]


def settings(models: Path, folder: Path, *members: str, **changes: object) -> Settings:
    known = {
        "llama": {
            "kind": "llama",
            "model": str(models / "llama"),
            "adapter": str(models / "adapter"),
            "max_length": 96,
            "weight": 0.6,
        },
        "lightgbm": {"kind": "lightgbm", "artifacts": str(models / "lightgbm"), "weight": 0.4},
    }
    chosen = {name: known[name] for name in members or known}
    values = {"input": str(folder / "in.csv"), "output": str(folder / "run"), "shard_rows": 8, "members": chosen}
    return Settings.model_validate({**values, **changes})


def scored(chosen: Settings) -> Report:
    with Display() as display:
        return score(chosen, display)


def submission(folder: Path) -> tuple[list[str], np.ndarray]:
    with (folder / "run" / "submission.csv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return [line[0] for line in lines], np.array([[float(value) for value in line[1:]] for line in lines])


def member_scores(folder: Path, member: str) -> np.ndarray:
    files = sorted((folder / "run" / "scores" / member).glob("*.parquet"))
    return np.concatenate([np.column_stack([pq.read_table(f)[c] for c in ("a", "b", "tie")]) for f in files])


def test_job_scores_blends_and_goes_on(models: Path, tmp_path: Path) -> None:
    ids = write_input(tmp_path / "in.csv")
    assert scored(settings(models, tmp_path, "lightgbm")).scored == {"lightgbm": 50}
    report = scored(settings(models, tmp_path))
    assert report.scored == {"llama": 50}, "a member added later scores only itself"
    assert report.tokens["llama"] > 50
    found, probabilities = submission(tmp_path)
    assert found == ids
    llama, lightgbm = member_scores(tmp_path, "llama"), member_scores(tmp_path, "lightgbm")
    np.testing.assert_allclose(probabilities, 0.6 * llama + 0.4 * lightgbm, atol=1e-6)
    assert np.abs(llama - lightgbm).max() > 0.01

    first = (tmp_path / "run" / "submission.csv").read_bytes()
    for member, shards in {"llama": [1, 6], "lightgbm": [0]}.items():
        for shard in shards:
            (tmp_path / "run" / "scores" / member / f"{shard:05d}.parquet").unlink()
    report = scored(settings(models, tmp_path))
    assert report.scored == {"llama": 8 + 2, "lightgbm": 8}
    assert (tmp_path / "run" / "submission.csv").read_bytes() == first

    chosen = settings(models, tmp_path).model_dump()
    chosen["members"]["lightgbm"]["weight"] = 0.1
    chosen["members"]["llama"]["weight"] = 0.1
    report = scored(Settings.model_validate(chosen))
    assert report.scored == {}
    np.testing.assert_allclose(submission(tmp_path)[1], (llama + lightgbm) / 2, atol=1e-6)

    chosen |= {"blend": "geometric", "prior": [0.2, 0.3, 0.5], "prior_weight": 0.1}
    assert scored(Settings.model_validate(chosen)).scored == {}
    mean = np.sqrt(llama * lightgbm)
    expected = 0.9 * mean / mean.sum(axis=1, keepdims=True) + 0.1 * np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(submission(tmp_path)[1], expected, atol=1e-6)


@pytest.mark.slow
def test_scores_do_not_depend_on_shards_or_members(models: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_input(tmp_path / name / "in.csv", 30)
    scored(settings(models, tmp_path / "one", "llama"))
    scored(settings(models, tmp_path / "two", "llama", shard_rows=100))
    np.testing.assert_allclose(submission(tmp_path / "one")[1], submission(tmp_path / "two")[1], atol=1e-5)


@pytest.mark.slow
def test_swap_averages_both_orders(models: Path, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 12)
    chosen = settings(models, tmp_path, "llama").model_dump()
    chosen["members"]["llama"]["swap"] = True
    scored(Settings.model_validate(chosen))
    shard = pq.read_table(tmp_path / "run" / "scores" / "llama" / "00000.parquet")
    plain, swapped = (np.array(shard[f"a_{order}"]) for order in ("plain", "swapped"))
    assert np.abs(plain - swapped).max() > 0.01
    np.testing.assert_allclose(shard["a"], (plain + swapped) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shard_rows": 9}, "was made with shard_rows = 8, now it is 9"),
        ({"limit": 3}, "was made with limit = null, now it is 3"),
        ({"members": {"lightgbm": {"artifacts": "other"}}}, "was made with members.lightgbm.artifacts"),
    ],
)
def test_run_of_other_settings_is_refused(models: Path, tmp_path: Path, change: dict, sentence: str) -> None:
    write_input(tmp_path / "in.csv", 10)
    first = settings(models, tmp_path, "lightgbm")
    scored(first)
    values = first.model_dump()
    for name, member in change.pop("members", {}).items():
        values["members"][name].update(member)
    with pytest.raises(RunError, match=sentence):
        scored(Settings.model_validate({**values, **change}))


def test_run_of_another_input_is_refused(models: Path, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 10)
    scored(settings(models, tmp_path, "lightgbm"))
    write_input(tmp_path / "in.csv", 9)
    with pytest.raises(RunError, match=r"was made with input = .*in\.csv.* continue with the old settings"):
        scored(settings(models, tmp_path, "lightgbm"))


def test_bad_rows_get_the_prior_and_a_reason(models: Path, tmp_path: Path) -> None:
    lines = [
        b"id,prompt,response_a,response_b",
        b'1,"[""hi""]","[""a""]","[""b""]"',
        b'2,"[""hi","[""a""]","[""b""]"',
        b"3,a,b",
        b'1,"[""hi""]","[""a""]","[""b""]"',
        b"4,\xff,b,c",
        b',"[""hi""]","[""a""]","[""b""]"',
        b'5,"[null]","[null]",nul \x00',
    ]
    (tmp_path / "in.csv").write_bytes(b"\r\n".join(lines))
    report = scored(settings(models, tmp_path, prior=[0.2, 0.3, 0.5]))
    ids, probabilities = submission(tmp_path)
    assert ids == ["1", "2", "3", "4", "5"]
    assert [row.tolist() == [0.2, 0.3, 0.5] for row in probabilities] == [False, True, True, True, False]
    rejects = [json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["row"], reject["id"]) for reject in rejects] == [(2, "2"), (3, "3"), (4, "1"), (5, "4"), (6, None)]
    assert (report.ingested.rows, report.ingested.lines, report.ingested.unscored) == (7, 5, 3)

    chosen = settings(models, tmp_path, prior=[0.2, 0.3, 0.5], on_bad_row="fail")
    with pytest.raises(RunError, match="lists 5 rows that cannot be used"):
        scored(chosen)


def test_fail_on_bad_row_stops_before_scoring(models: Path, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 10, ids=lambda n: "" if n == 4 else n)
    with pytest.raises(RunError, match=r"in\.csv, row 5 \(id None\): id is missing"):
        scored(settings(models, tmp_path, on_bad_row="fail"))
    assert list((tmp_path / "run" / "scores").iterdir()) == []


def test_member_that_cannot_be_loaded_ends_the_job_with_its_sentence(models: Path, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 10)
    chosen = settings(models, tmp_path, "llama").model_dump()
    chosen["members"]["llama"]["adapter"] = str(models / "llama")
    with pytest.raises(RunError, match=r"^members.llama: adapter: .* lacks adapter_model.safetensors") as raised:
        scored(Settings.model_validate(chosen))
    assert "\n" not in str(raised.value)


def test_what_replicas_have_to_say_is_shown_once(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    experts = MixtralConfig(**{**SIZES, "num_local_experts": 2})
    AutoModelForSequenceClassification.from_config(experts).save_pretrained(tmp_path / "experts")
    make_tokenizer(tmp_path / "experts")
    write_input(tmp_path / "in.csv")
    judge = {"kind": "llama", "model": str(tmp_path / "experts"), "quantization": "nf4", "max_length": 96}
    scored(settings(models, tmp_path, members={"judge": judge}))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("members.judge: ")]
    (line,) = lines
    assert line == "members.judge: quantization nf4 reaches 25% of its weights beside the embeddings, others stay plain"
    found = json.loads((tmp_path / "run" / "manifest.json").read_text())["models"]["judge"]
    assert found["padding"] == "none"
    assert 0 <= found["largest_logit_difference"] <= found["allowed_logit_difference"]


def test_limit_and_many_files(models: Path, tmp_path: Path) -> None:
    for part in range(3):
        write_input(tmp_path / f"part-{part}.csv", 6, ids=lambda n, part=part: f"{part}-{n}")
    chosen = settings(models, tmp_path, "lightgbm", input=str(tmp_path / "part-*.csv"), limit=14)
    assert scored(chosen).ingested.rows == 14
    assert submission(tmp_path)[0] == [f"{n // 6}-{n % 6}" for n in range(14)]
