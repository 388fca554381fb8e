"""What a run is made from is told by the whole of its files."""

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from lmsys_ray.members.protocol import MemberSettings
from lmsys_ray.scoring import fingerprint as fingerprints
from lmsys_ray.scoring.fingerprint import fingerprint, member_digest
from lmsys_ray.scoring.settings import Settings


def model_content(rows: Path, model: Path) -> str:
    member = {"kind": "llama", "model": str(model)}
    return fingerprint(Settings(input=[str(rows)], output="x", members={"judge": member}))["members"]["judge"][
        "model_content"
    ]


def test_a_large_file_that_differs_in_its_middle_alone_is_another_model(tmp_path: Path) -> None:
    rows, model, weights = tmp_path / "rows.csv", tmp_path / "model", tmp_path / "model" / "model.safetensors"
    rows.write_text("id,prompt,response_a,response_b\n1,a,b,c\n")
    model.mkdir()
    with weights.open("wb") as file:
        file.truncate(257 << 20)
    stat, before = weights.stat(), model_content(rows, model)
    with weights.open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"x")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model_content(rows, model) != before


class Before(MemberSettings):
    kind: Literal["trees"]
    depth: int = 3


class Later(Before):
    names: tuple[str, ...] = ("a", "b")
    shares: dict[str, float] = Field(default_factory=lambda: {"a": 0.5})


def test_defaults_of_any_type_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a kind may get a setting in a later version, whatever its type, and runs of before go on."""

    def digest(settings: MemberSettings) -> str:
        monkeypatch.setattr(fingerprints, "class_named", lambda kind: type(settings))
        return member_digest(settings.model_dump(mode="json", exclude={"weight"}))

    before, later = Before(kind="trees"), Later(kind="trees")
    assert digest(later) == digest(before)
    assert digest(later.model_copy(update={"names": ("b",)})) != digest(before)
    assert digest(later.model_copy(update={"shares": {}})) != digest(before)
