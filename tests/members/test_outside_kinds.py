"""Kinds of members that installed packages offer; the package is the one that docs/adding-a-member.md shows."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmsys_ray.errors import UsageError
from lmsys_ray.members import registry
from lmsys_ray.members.lightgbm.kind import KIND as LIGHTGBM
from lmsys_ray.members.registry import Package, kind_named, names, package_of, validated
from lmsys_ray.scoring.settings_page import tables

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-member.md"

ROWS = 20


def shown_files() -> dict[str, str]:
    """Returns the files that the page shows, by name: each block of code that begins with a comment of its name."""
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return dict(blocks)


def installed(folder: Path, version: str) -> Path:
    """Builds the package that the page shows and installs it; returns the folder to which it was installed."""
    source, target = folder / f"source-{version}", folder / f"installed-{version}"
    source.mkdir()
    files = shown_files()
    (source / "length_judge.py").write_text(files["length_judge.py"])
    (source / "pyproject.toml").write_text(files["pyproject.toml"].replace('"1.0"', f'"{version}"'))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    flags = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *flags, str(source)], check=True, capture_output=True)
    return target


def score(folder: Path, package: Path) -> tuple[int, str]:
    """Runs the job on the settings that the page shows; returns its exit code and what it said."""
    path = os.pathsep.join([str(package), str(ROOT)])
    command = [sys.executable, "-W", "ignore", str(ROOT / "jobs" / "score.py"), "--config", "run.yaml"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_kind_of_an_installed_package_scores(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(shown_files()["run.yaml"])
    with (tmp_path / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        writer.writerows([f"id-{n}", "How long?", "a" * (10 + 60 * n), "b" * 600] for n in range(ROWS))
    first, second = installed(tmp_path, "1.0"), installed(tmp_path, "2.0")

    code, said = score(tmp_path, first)
    assert code == 0, said
    run = tmp_path / "runs" / "test"
    submission = (run / "submission.csv").read_bytes()
    lines = list(csv.DictReader(submission.decode().splitlines()))
    assert [line["id"] for line in lines] == [f"id-{n}" for n in range(ROWS)]
    preferred = [float(line["winner_model_a"]) > float(line["winner_model_b"]) for line in lines]
    assert preferred == [10 + 60 * n > 600 for n in range(ROWS)]
    member = json.loads((run / "manifest.json").read_text())["members"]["length"]
    assert member == {"kind": "length", "scale": 300.0, "swap": False, "package": "length-judge 1.0"}

    code, said = score(tmp_path, first)
    assert (code, "length: nothing to score, all shards were done" in said) == (0, True), said
    assert (run / "submission.csv").read_bytes() == submission

    code, said = score(tmp_path, second)
    assert code == 2
    assert said.splitlines()[-1] == (
        f'error: {run} was made with members.length.package = "length-judge 1.0", now it is "length-judge 2.0"; '
        "continue with the old settings or choose another --output"
    )


Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """Lays a package out as an installed one: its module, and the names of its entry points by what they lead to."""

    def lay_out(package: str, source: str, **entries: str) -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.5.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{package}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        points = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}")
        monkeypatch.syspath_prepend(str(folder))
        forget()

    def forget() -> None:
        registry.kind_named.cache_clear()
        registry._offered.cache_clear()

    yield lay_out
    monkeypatch.undo()
    forget()


def refusal(kind: str) -> str:
    with pytest.raises(UsageError) as refused:
        validated({"kind": kind})
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_kind_is_told_apart_by_its_package(offer: Offer) -> None:
    packaged = names()
    offer("judge_whole", shown_files()["length_judge.py"], length="judge_whole:KIND")
    assert names() == [*packaged, "length"]
    assert package_of("length") == Package("judge_whole", "1.5")
    assert package_of("classifier") is None
    assert validated({"kind": "length", "weight": 2}).weight == 2
    assert tables().keys() == {"run", *packaged}


def test_a_name_of_a_packaged_kind_is_not_taken(offer: Offer) -> None:
    source, packaged = shown_files()["length_judge.py"], names()
    offer("judge_taking", source, lightgbm="judge_taking:KIND", llama="judge_taking:KIND")
    assert names() == packaged
    assert kind_named("lightgbm") is LIGHTGBM
    assert package_of("lightgbm") is None
    assert validated({"kind": "llama", "model": "some/model"}).kind == "classifier"


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("judge_importing", "import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("judge_raising", "raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("judge_typing", "KIND = (", "SyntaxError: '(' was never closed (judge_typing.py, line 1)"),
        ("judge_empty", "", "AttributeError: module 'judge_empty' has no attribute 'KIND'"),
    ],
)
def test_a_kind_that_cannot_be_loaded_is_one_sentence(offer: Offer, module: str, source: str, reason: str) -> None:
    offer(module, source, broken=f"{module}:KIND")
    origin = f"{module}:KIND of the package {module}"
    assert refusal("broken") == f"kind broken: {origin} cannot be loaded ({reason}); mend or remove it"


@pytest.mark.parametrize(
    ("module", "old", "new", "fault"),
    [
        ("judge_half", "def encoder", "def decoder", "lacks encoder"),
        ("judge_bare", "settings = LengthSettings", "settings = dict", "lacks settings (a subclass of lmsys_ray."),
        ("judge_class", "KIND = LengthKind()", "KIND = LengthKind", "is a class where an instance of it is needed"),
        ("judge_lane", 'lane: Lane = "cpu"', 'lane = "gpu"', "has lane = 'gpu', accepted: device, cpu"),
        ("judge_reserved", "    scale:", "    package: str = ''\n    scale:", "has a setting package, a name that the"),
        ("judge_unknown", "    scale:", "    ARTIFACTS = ('file',)\n    scale:", "names file in ARTIFACTS or MUTABLE"),
    ],
)
def test_a_kind_that_lacks_something_is_one_sentence(offer: Offer, module: str, old: str, new: str, fault: str) -> None:
    source = shown_files()["length_judge.py"]
    assert source.count(old) == 1
    offer(module, source.replace(old, new), broken=f"{module}:KIND")
    sentence = refusal("broken")
    assert sentence.startswith(f"kind broken: {module}:KIND of the package {module} {fault}")
    assert sentence.endswith("; mend or remove it")


def test_a_kind_of_two_packages_is_one_sentence(offer: Offer) -> None:
    for package in ("judge_one", "judge_two"):
        offer(package, shown_files()["length_judge.py"], length=f"{package}:KIND")
    sentence = refusal("length")
    assert "judge_one:KIND of the package judge_one" in sentence
    assert "judge_two:KIND of the package judge_two" in sentence
    assert sentence.endswith("; remove all of them but one")


def test_broken_kinds_stop_nobody_else(offer: Offer) -> None:
    offer("judge_aside", "raise RuntimeError", broken="judge_aside:KIND")
    assert validated({"kind": "lightgbm", "artifacts": "some/trees"}).kind == "lightgbm"
    assert "broken" in names()
