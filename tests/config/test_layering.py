"""Settings: preset, config and flags in layers; a fault is one line that names the key, the value, what is accepted."""

import os
from pathlib import Path

import pytest
import yaml

from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.config.layering import PRESETS
from lmsys_ray.ensemble.stacking import Stacking
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.scoring.settings import Settings


def settings(*arguments: str) -> Settings:
    return score_settings(parser().parse_args(arguments))


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


def test_a_later_config_wins_and_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    first = config(tmp_path, f"input: a.csv\nlimit: 7\nshard_rows: 5\nstacking: null\n{LLAMA}")
    (tmp_path / "calibration.yaml").write_text(
        "members: {judge: {weight: 0.5}}\nlimit: 3\ninput: [b.csv, c.csv]\nblend: stacked\n"
        "stacking: {members: {judge: {preference: 1, tie: 2}}}"
    )
    found = settings("--config", first, "--config", str(tmp_path / "calibration.yaml"), "--set", "limit=9")
    assert (found.input, found.limit, found.shard_rows) == (["b.csv", "c.csv"], 9, 5)
    assert (found.members["judge"].weight, found.members["judge"].model) == (0.5, "some/model")
    assert found.blending().stacking == Stacking(0.0, {"judge": (1, 2)})
    turned = settings("--config", str(tmp_path / "calibration.yaml"), "--config", first, "--set", "blend=linear")
    assert (turned.input, turned.limit, turned.members["judge"].weight) == (["a.csv"], 7, 2)


def test_configs_that_contradict_each_other_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("members: [a, b]")
    first = config(tmp_path, LLAMA)
    for order in ([first, str(tmp_path / "list.yaml")], [str(tmp_path / "list.yaml"), first]):
        with pytest.raises(UsageError, match="a list where another has a mapping"):
            settings("--config", order[0], "--config", order[1])
    with pytest.raises(UsageError, match="a list where another has a mapping"):
        settings("--preset", "default", "--config", str(tmp_path / "list.yaml"))


def test_members_of_a_config_are_all_there_are(tmp_path: Path) -> None:
    found = settings(
        "--config", config(tmp_path, LLAMA), "--input", "a.csv", "b.csv", "--set", "members.judge.swap=true"
    )
    assert list(found.members) == ["judge"]
    assert isinstance(found.members["judge"], ClassifierSettings)
    assert found.members["judge"].swap
    assert found.output == os.path.abspath("runs/a")


def test_a_run_that_is_named_alone_goes_on_with_its_own_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    made = settings("--config", config(tmp_path, LLAMA), "--input", "a.csv", "--output", str(run), "--limit", "7")
    (run / "settings.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json")))
    assert settings("--output", str(run)) == made
    told = f"settings: those of {run}/settings.yaml, with which the run was last started"
    assert capsys.readouterr().out.splitlines() == [told, "limit: 7 rows, as before; --set limit=null goes on to all"]
    for flags, limit in ((["--limit", "9"], 9), (["--set", "limit=null"], None)):
        assert settings("--output", str(run), *flags) == made.model_copy(update={"limit": limit})
        assert capsys.readouterr().out.splitlines() == [told]
    assert settings("--output", str(run), "--input", "b.csv").members.keys() == {"llama", "lightgbm"}


def test_default_needs_nothing() -> None:
    found = settings()
    assert (found.input, found.output) == (["packaged:sample.csv"], os.path.abspath("runs/sample"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("members.judge.weight=-1", "judge.weight = -1 is not accepted; accepted: greater than or equal to 0"),
        ("members.judge.weight=.nan", "members.judge.weight = nan is not accepted; accepted: a finite number"),
        ("members.judge.wieght=1", "members.judge.wieght = 1 is not a setting; did you mean weight?"),
        ("members.judge.kind=bert", "members.judge.kind = 'bert' is not accepted; accepted: classifier, "),
        (
            "members.judge.quantization=int4",
            "'int4' is not accepted; accepted: 'auto', 'none', 'int8', 'nf4', 'int8_dynamic' or 'fp8'",
        ),
        (
            "members.judge.replicas=many",
            "replicas = 'many' is not accepted; accepted: a valid integer or 'auto'",
        ),
        ("members.other.weight=1", "members.other.kind is needed; accepted: "),
        ("members.jugde.weight=1", "members.jugde.kind is needed (or did you mean members.judge?); accepted: "),
        (
            "members.judge.max_length=long",
            "max_length = 'long' is not accepted; accepted: a valid integer",
        ),
        ("shard_row=1", "shard_row = 1 is not a setting; did you mean shard_rows?"),
        ("on_bad_row=skip", "on_bad_row = 'skip' is not accepted; accepted: 'reject' or 'fail'"),
        ("prior=[0.5,0.5,0.5]", "accepted: three probabilities that sum to 1"),
        (
            "members.judge.weight=0",
            "settings: members.judge.weight = 0 is not accepted; accepted: a weight above 0 for at least one member",
        ),
        ("members.judge.wieght =1", "members.judge.wieght = 1 is not a setting; did you mean weight?"),
        ("members.a/b.kind=llama", "members.a/b"),
        (
            "outputs.escape_formula=true",
            "outputs.escape_formula = True is not a setting; did you mean escape_formulas?",
        ),
        ("outputs.escape_formulas=3", "outputs.escape_formulas = 3 is not accepted"),
        ("outputs=3", "outputs = 3 is not accepted"),
        ("outputs.preferences.formt=trl", "outputs.preferences.formt = 'trl' is not a setting; did you mean format?"),
        (
            "outputs.preferences.margin=2",
            "outputs.preferences.margin = 2 is not accepted; accepted: less than or equal",
        ),
        ("outputs.preferences=trl", "outputs.preferences = 'trl' is not accepted"),
        ("prior_weight=1", "prior_weight = 1 is not accepted; accepted: less than 1"),
        ("blend=harmonic", "'harmonic' is not accepted; accepted: 'linear', 'geometric' or 'stacked'"),
        (
            "blend=stacked",
            "stacking = None is not accepted; accepted: for blend = stacked, coefficients of the members",
        ),
        ("stacking.members.judge={preference: 1}", "stacking.members.judge.tie is needed"),
        ("stacking.members.judge={preference: 1, tie: x}", "stacking.members.judge.tie = 'x' is not accepted"),
    ],
)
def test_fault_is_one_line(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings("--config", config(tmp_path, LLAMA), "--set", change)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_of_the_preset_is_left_out_in_one_word(tmp_path: Path) -> None:
    assert list(settings(*sets("members.llama=null")).members) == ["lightgbm"]
    both = config(tmp_path, "members: {llama: null, mine: {kind: llama, model: x}}")
    assert list(settings("--config", both).members) == ["mine"]
    with pytest.raises(UsageError, match=r"members = \{\} is not accepted"):
        settings(*sets("members.llama=null", "members.lightgbm=null"))


def test_space_around_the_equals_sign_does_not_matter() -> None:
    assert settings(*sets("members.llama.weight = 0.25 ", "limit =3")).limit == 3


def test_all_that_is_needed_is_named_at_once(tmp_path: Path) -> None:
    path = config(tmp_path, "members: {one: {kind: llama}, two: {kind: lightgbm}}")
    expected = "settings: members.one.model, members.two.artifacts are needed; give them in --config or by --set m"
    with pytest.raises(UsageError, match=expected):
        settings("--config", path)


def test_settings_of_settings_come_from_flags(tmp_path: Path) -> None:
    chosen = settings("--config", config(tmp_path, LLAMA), "--set", "outputs.preferences.format=trl").outputs
    assert (chosen.preferences.format, chosen.preferences.file, chosen.scores) == ("trl", "jsonl", True)


def test_a_stacked_blend_has_the_members_that_are_blended(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        """
        members: {one: {kind: llama, model: x}, two: {kind: llama, model: x}, out: {kind: llama, model: x, weight: 0}}
        blend: stacked
        stacking: {tie: 0.5, members: {one: {preference: 1, tie: 2}, two: {preference: 3, tie: 4}}}
        """,
    )
    blend = settings("--config", path).blending()
    assert blend.stacking == Stacking(0.5, {"one": (1, 2), "two": (3, 4)})
    assert blend.weights == {"one": 0.5, "two": 0.5}
    for change in ("members.two.weight=0", "members.out.weight=1"):
        with pytest.raises(UsageError, match=r"stacking = .* accepted: for blend = stacked, coefficients of the mem"):
            settings("--config", path, "--set", change)
        assert settings("--config", path, "--set", change, "--set", "blend=linear").blending().stacking is None


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
    assert isinstance(llama, ClassifierSettings)
    assert (llama.text, llama.template, llama.truncation, llama.padding) == (
        "notebook",
        "notebook",
        "right",
        "max_length",
    )
    assert (llama.weight, found.members["lightgbm"].weight, llama.max_length) == (0.95, 0.05, 2048)


def sets(*changes: str) -> list[str]:
    return [argument for change in changes for argument in ("--set", change)]


OWN = ("members.llama.model=some/model", "members.llama.adapter=some/adapter")
PLAIN = ClassifierSettings(kind="llama", model="some/model", weight=0.1)


def test_another_model_is_read_as_if_no_preset_had_named_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings(*sets(OWN[0])).members["llama"] == PLAIN
    assert capsys.readouterr().out == (
        "members.llama: the model is another than the preset's, whose adapter, layers, text, template, max_length, "
        "truncation, swap are left out; the preset's weight of 0.1 stays\n"
    )
    assert settings(*sets(*OWN)).members["llama"] == PLAIN.model_copy(update={"adapter": "some/adapter"})


def test_what_is_given_for_another_model_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, "members: {llama: {model: some/model, layers: 16, swap: true}}")
    found = settings("--preset", "default", "--config", path, *sets("members.llama.weight=1"))
    assert found.members["llama"] == PLAIN.model_copy(update={"layers": 16, "swap": True, "weight": 1.0})
    assert "whose adapter, text, template, max_length, truncation are left out\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["llama", "classifier"])
def test_a_kind_by_its_former_name_is_the_presets(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings(*sets(f"members.llama.kind={name}")) == settings()
    assert capsys.readouterr().out == ""


def test_another_kind_keeps_the_weight_alone() -> None:
    found = settings(*sets("members.llama.kind=lightgbm", "members.llama.artifacts=some/trees"))
    assert found.members["llama"] == LightGBMSettings(kind="lightgbm", artifacts="some/trees", weight=0.1)


def test_another_adapter_of_the_same_model_keeps_what_is_not_about_adapters(tmp_path: Path) -> None:
    (tmp_path / "scoring.json").write_text('{"layers": 12, "max_length": 256, "template": "labelled", "pooling": "x"}')
    packaged = settings().members["llama"]
    as_others = {"layers": None, "text": "json", "template": "notebook", "max_length": 2048, "truncation": "right"}
    for adapter, own in (
        ("some/adapter", as_others),
        (str(tmp_path), {**as_others, "layers": 12, "template": "labelled", "max_length": 256}),
    ):
        found = settings(*sets(f"members.llama.adapter={adapter}")).members["llama"]
        assert found == packaged.model_copy(update={"adapter": adapter, **own})
    found = settings(*sets(f"members.llama.adapter={tmp_path}", "members.llama.layers=9")).members["llama"]
    assert isinstance(found, ClassifierSettings)
    assert (found.layers, found.max_length) == (9, 256)


def test_the_packaged_models_named_once_more_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    same = ("model=packaged:smollm2-135m", "adapter=packaged:smollm2-135m-lora", "swap=true", "batch_tokens=512")
    found = settings(*sets(*(f"members.llama.{change}" for change in same), "members.lightgbm.artifacts=some/trees"))
    llama = settings().members["llama"]
    assert found.members["llama"] == llama.model_copy(update={"batch_tokens": 512})
    assert found.members["lightgbm"] == LightGBMSettings(kind="lightgbm", artifacts="some/trees", weight=0.9)
    assert capsys.readouterr().out == ""


def test_members_of_a_config_know_nothing_of_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, "members: {llama: {kind: llama, model: some/model}}")
    assert settings("--config", path).members == {"llama": PLAIN.model_copy(update={"weight": 1.0})}
    assert settings("--config", path, *sets(OWN[1])).members["llama"].model == "some/model"
    assert capsys.readouterr().out == ""


def test_the_preset_notebook_names_no_model_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    given = sets(*OWN, "members.lightgbm.artifacts=some/trees")
    llama = settings("--preset", "notebook", "--input", "a.csv", *given).members["llama"]
    wanted = {"text": "notebook", "padding": "max_length", "batch_tokens": 8192, "special_tokens": "parse"}
    assert llama == PLAIN.model_copy(update={"adapter": "some/adapter", "weight": 0.95, **wanted})
    assert capsys.readouterr().out == ""


def test_a_damaged_note_beside_an_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "scoring.json").write_text("{")
    with pytest.raises(UsageError, match=r"adapter: scoring\.json of .* is not JSON"):
        settings(*sets(f"members.llama.adapter={tmp_path}"))


def test_nothing_is_said_before_a_credential_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="credential"):
        settings(*sets("members.llama.model=https://user:secret@host/model"))
    assert capsys.readouterr().out == ""
