"""What a shared config must not do: read the environment, grow without bound, end in a traceback."""

import os
from pathlib import Path
from typing import Any

import pytest

from lmsys_ray.config.command_options import parse_options
from lmsys_ray.config.setting_texts import resolve_references
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.training.options import TrainingOptions
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
from lmsys_ray.storage.files import path_of
from lmsys_ray.storage.packaged import locate
from tests.config.test_layering import config, settings

SECRET = "only-for-the-owner"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", SECRET)


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:A_SECRET}",
        "s3://bucket/${oc.env:A_SECRET}",
        "${oc.env:A_SECRET,none}",
        "${ oc.env : A_SECRET }",
        "${oc.decode:${oc.env:A_SECRET}}",
        "\\\\${oc.env:A_SECRET}",
        "${${limit}}",
        "${oc.create:[1]}",
        "${oc.env:'A_SECRET'}",
        "${limit",
        "${}",
    ],
)
def test_nothing_comes_from_the_environment(tmp_path: Path, value: str) -> None:
    path = config(tmp_path, f"input: a.csv\nlimit: 3\noutput: '{value}'")
    ways: list[list[str]] = [
        ["--config", path],
        ["--input", "a.csv", "--output", value],
        ["--set", f"output='{value}'"],
    ]
    for arguments in ways:
        with pytest.raises(UsageError) as caught:
            settings(*arguments)
        assert SECRET not in str(caught.value)
        assert "output" in str(caught.value)
        assert "\n" not in str(caught.value)
    for model in (TrainingOptions, LightGBMOptions):
        with pytest.raises(UsageError, match="fold_column"):
            parse_options(model, [f"fold_column='{value}'"])


def test_the_sentence_names_the_key_and_what_to_do(tmp_path: Path) -> None:
    text = "members: {judge: {kind: llama, model: 'x-${oc.env:A_SECRET}'}}"
    with pytest.raises(UsageError) as caught:
        settings("--config", config(tmp_path, text), "--input", "a.csv")
    assert str(caught.value).endswith(
        "run.yaml: members.judge.model holds '${oc.env:A_SECRET}', but settings take nothing from the environment nor "
        "from other resolvers; write the value itself, or a setting's name such as ${output}"
    )


def test_a_layer_above_cannot_let_a_resolver_in(tmp_path: Path) -> None:
    path = config(tmp_path, "members: \"${oc.decode:'{judge: {kind: llama}}'}\"")
    with pytest.raises(UsageError, match="members holds"):
        settings("--config", path, "--input", "a.csv", "--set", "members.judge.model=m")


def test_settings_refer_to_settings(tmp_path: Path) -> None:
    text = """
input: a.csv
limit: 7
output: runs/${limit}/${members.judge.model}
members:
  judge: {kind: llama, model: 'm-${..other.weight}', weight: 2}
  other: {kind: llama, model: '\\${literal}', weight: 3, max_length: '${limit}0'}
  third: ${members.other}
"""
    with pytest.raises(UsageError, match=r"output refers to members\.judge\.model, which refers to another"):
        settings("--config", config(tmp_path, text))
    with pytest.raises(UsageError, match=r"members\.third refers to members\.other, which refers to another"):
        settings("--config", config(tmp_path, text), "--set", "output=x")
    found = settings("--config", config(tmp_path, text.replace("'${limit}0'", "70")), "--set", "output=r${limit}")
    judge, other, third = (found.members[name].model_dump() for name in ("judge", "other", "third"))
    assert (found.output, judge["model"], other["model"]) == (os.path.abspath("r7"), "m-3", "${literal}")
    assert third == other


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": {"b": "${.c}", "c": 1}}, {"a": {"b": 1, "c": 1}}),
        ({"a": {"b": "${..c}"}, "c": [4, 5]}, {"a": {"b": [4, 5]}, "c": [4, 5]}),
        ({"a": "${c[1]}-${ c.0 }", "c": [4, 5]}, {"a": "5-4", "c": [4, 5]}),
        ({"a": r"\${c} ${c}", "c": None}, {"a": "${c} None", "c": None}),
    ],
)
def test_references_resolve_as_omegaconf_resolves_them(values: dict[str, Any], expected: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    assert resolve_references(values) == expected
    assert OmegaConf.to_container(OmegaConf.create(values), resolve=True) == expected


DOUBLING = "a0: xxxxxxxxxx\n" + "".join(f'a{i}: "{f"${{a{i - 1}}}" * 10}"\n' for i in range(1, 12))
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "nested deeper than 50 levels"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested deeper than 50 levels"),
        ("- " * 3000 + "a", "nested deeper than 50 levels"),
        (LAUGHS, "its anchors and values make more than 20000 values"),
        (DOUBLING, "which refers to another"),
        ("input: &x [*x]", "not a readable YAML"),
        ("a: ${b}\nb: ${a}", "which refers to another"),
        ("a: ${a}", "which refers to another"),
        ("limit: " + "9" * 5000, "Exceeds the limit"),
        ("limit: " + "9" * 50, "limit = 9999"),
        ("limit: -" + "9" * 50, "limit = -9999"),
        ("limit: 1e400", "limit = "),
        ("x: !!python/object/apply:os.getcwd []", "not a readable YAML"),
        ("a: ${b}", "which is not set"),
        ("a: " + "x" * (2 << 20), "more than settings ever need"),
        (f"a: {'x' * 100_000}\nb: {'${a}' * 1000}", "become too large|become too long"),
        ("input: a.csv\n? [1, 2]\n: 3", "settings|--config"),
        ("1: 2\nnull: 3", "settings|--config"),
    ],
    ids=lambda text: text[:30],
)
def test_yaml_that_grows_or_is_deep_is_one_sentence(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        settings("--config", config(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["[" * 3000, "[" * 3000 + "]" * 3000, "{a: *x}", "9" * 5000])
def test_a_flag_that_cannot_be_read_is_one_sentence(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings("--set", f"limit={value}")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["/etc", "..", "../..", "", ".", "presets", "lightgbm/../../config.py", "\0"])
def test_only_what_is_packaged_is_packaged(name: str) -> None:
    with pytest.raises(
        UsageError, match="is not packaged; the packaged names are packaged:lightgbm, packaged:minilm, packaged:sample"
    ):
        locate(f"packaged:{name}")


def test_a_path_with_a_nul_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"'a\\x00b' holds a NUL character"):
        path_of("a\0b")
