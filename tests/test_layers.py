"""Settings: preset, config and flags in layers; a fault is one line that names the key, the value, what is accepted."""

from pathlib import Path

import pytest

from lmsys_ray.commands import score_parser, score_settings
from lmsys_ray.config import LlamaSettings, Settings
from lmsys_ray.errors import UsageError
from lmsys_ray.layers import PRESETS


def settings(*arguments: str) -> Settings:
    return score_settings(score_parser().parse_args(arguments))


def config(folder: Path, text: str) -> str:
    (folder / "run.yaml").write_text(text)
    return str(folder / "run.yaml")


LLAMA = "members: {judge: {kind: llama, model: some/model, weight: 2}}"


def test_flags_win_over_config_and_config_over_preset(tmp_path: Path) -> None:
    path = config(tmp_path, "input: a.csv\nshard_rows: 5\nlimit: 7\nmembers: {lightgbm: {weight: 9}}")
    found = settings("--preset", "default", "--config", path, "--limit", "3", "--set", "shard_rows=6")
    assert (found.input, found.limit, found.shard_rows) == (["a.csv"], 3, 6)
    assert found.members["lightgbm"].weight == 9
    assert set(found.members) == {"llama", "lightgbm"}


def test_members_of_a_config_are_all_there_are(tmp_path: Path) -> None:
    found = settings(
        "--config", config(tmp_path, LLAMA), "--input", "a.csv", "b.csv", "--set", "members.judge.swap=true"
    )
    assert list(found.members) == ["judge"]
    assert isinstance(found.members["judge"], LlamaSettings)
    assert found.members["judge"].swap
    assert found.output == "runs/a"


def test_default_needs_nothing() -> None:
    found = settings()
    assert (found.input, found.output) == (["packaged:sample.csv"], "runs/sample")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("members.judge.weight=-1", "judge.weight = -1 is not accepted; accepted: greater than or equal to 0"),
        ("members.judge.weight=.nan", "members.judge.weight = nan is not accepted; accepted: a finite number"),
        ("members.judge.wieght=1", "members.judge.wieght = 1 is no setting; did you mean weight?"),
        ("members.judge.kind=bert", "members.judge.kind = 'bert' is not accepted; accepted: llama, lightgbm"),
        (
            "members.judge.quantization=int4",
            "'int4' is not accepted; accepted: 'auto', 'none', 'int8', 'nf4', 'int8_dynamic' or 'fp8'",
        ),
        (
            "members.judge.replicas=many",
            "replicas = 'many' is not accepted; accepted: a valid integer or 'auto'",
        ),
        ("members.other.weight=1", "members.other.kind is needed"),
        (
            "members.judge.max_length=long",
            "max_length = 'long' is not accepted; accepted: a valid integer",
        ),
        ("shard_row=1", "shard_row = 1 is no setting; did you mean shard_rows?"),
        ("on_bad_row=skip", "on_bad_row = 'skip' is not accepted; accepted: 'reject' or 'fail'"),
        ("prior=[0.5,0.5,0.5]", "accepted: three probabilities that sum to 1"),
        ("members.judge.weight=0", "accepted: at least one member with a weight above 0"),
        ("members.a/b.kind=llama", "members.a/b"),
    ],
)
def test_fault_is_one_line(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings("--config", config(tmp_path, LLAMA), "--set", change)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "nope"], "--preset: nope is not packaged; accepted are default, notebook"),
        (["--preset", "../presets/default"], "is not packaged"),
        (["--config", "nope.yaml"], "nope.yaml does not exist"),
        (["--set", "shard_rows"], "is not of the form key.path=value"),
        (["--set", "=3"], "is not of the form key.path=value"),
    ],
)
def test_unusable_layer_is_a_usage_error(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        settings(*arguments)


@pytest.mark.parametrize("text", ["members: [", "- a\n- b\n", "just text", "a: ${b}"])
def test_unreadable_config_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        settings("--config", config(tmp_path, text))


def test_every_preset_is_valid_once_its_paths_are_given() -> None:
    assert {path.stem for path in PRESETS.glob("*.yaml")} == {"default", "notebook"}
    found = settings(
        "--preset",
        "notebook",
        "--input",
        "a.csv",
        "--set",
        "members.llama.model=m",
        "--set",
        "members.lightgbm.artifacts=x",
    )
    llama = found.members["llama"]
    assert isinstance(llama, LlamaSettings)
    assert (llama.text, llama.template, llama.truncation, llama.padding) == (
        "notebook",
        "notebook",
        "right",
        "max_length",
    )
    assert (llama.weight, found.members["lightgbm"].weight, llama.max_length) == (0.95, 0.05, 2048)
