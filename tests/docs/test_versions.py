"""The Pythons of pyproject.toml, the workflows, README and CONTRIBUTING agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_, FIRST, LAST = re.split(r">=3\.|,<3\.", PROJECT["requires-python"])
ALLOWED = [f"3.{minor}" for minor in range(int(FIRST), int(LAST))]


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return loaded


def test_classifiers_name_the_pythons_that_are_allowed() -> None:
    named = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"])
    assert [each[1] for each in named if each] == ALLOWED


def test_each_python_is_tested_for_every_change() -> None:
    matrix = workflow("ci.yml")["jobs"]["fast"]["strategy"]["matrix"]
    assert matrix["python"] == ALLOWED


def test_the_page_of_tried_versions_has_no_other() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    tried = {match[1] for match in re.finditer(r"^\| (3\.\d+)\.\d+ \|", page, re.MULTILINE)}
    assert tried
    assert tried <= set(ALLOWED)


def test_what_people_read_names_the_same_pythons() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {ALLOWED[0]} to {ALLOWED[-1]} on Linux" in (ROOT / name).read_text(encoding="utf-8"), name


def pinned(name: str) -> dict[str, str]:
    """The versions in a file of requirements, by name as PyPI writes it."""
    lines = re.finditer(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(match[1]): match[2] for match in lines}


def test_the_locked_versions_are_those_of_the_constraints() -> None:
    """The lock has more packages, such as those of CUDA, which depend on the machine."""
    locked, constraints = pinned("requirements.lock"), pinned("constraints.txt")
    both = locked.keys() & constraints.keys()
    assert {name: locked[name] for name in both} == {name: constraints[name] for name in both}
    needed = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
    assert needed <= both


def test_each_locked_package_has_digests() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(entries) - 1 == len(pinned("requirements.lock")) > 100
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries[1:])


def test_a_release_keeps_no_password() -> None:
    """PyPI trusts the workflow; only the job that publishes may ask for its identity."""
    release = workflow("release.yml")
    assert release["permissions"] == {"contents": "read"}
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
