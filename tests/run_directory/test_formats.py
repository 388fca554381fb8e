"""The format of a run directory: known ones are upgraded, others are a sentence, and none changes unnoticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from lmsys_ray import __version__
from lmsys_ray.errors import DamagedManifestError, UsageError
from lmsys_ray.run_directory import formats
from lmsys_ray.run_directory.formats import FORMAT
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Manifest
from tests.run_directory.format_of import FOLDER, of_the_code, stored

INGEST: dict[str, Any] = {"input": [], "limit": None, "cells": "auto", "shard_rows": 10}
THREE: dict[str, Any] = {
    "format": 3,
    "ingest": INGEST,
    "members": {"judge": {"kind": "llama"}, "own": {"kind": "theirs"}},
    "kept": 1,
}


def write(folder: Path, **values: Any) -> RunDirectory:
    """Writes a manifest with a checksum, as all formats after 2 have one."""
    if values["format"] > 2:
        values["checksum"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(values))
    return RunDirectory(folder)


def test_the_format_is_the_one_that_is_stored() -> None:
    """Raise FORMAT where this fails: CONTRIBUTING.md says how."""
    assert of_the_code() == stored()


def test_every_earlier_format_leads_to_the_present_one() -> None:
    assert sorted(formats._STEPS) == list(range(2, FORMAT))
    assert max(int(path.stem) for path in FOLDER.glob("*.json")) == FORMAT


def test_a_manifest_of_format_3_gets_what_was_not_written_down() -> None:
    values = formats.upgraded(THREE)
    assert values["format"] == FORMAT
    assert values["ingest"] == {**INGEST, "reading": {}, "names": [], "largest_cell": 67108864}
    assert values["members"] == {"judge": {"kind": "classifier"}, "own": {"kind": "theirs"}}
    assert values["kept"] == 1
    assert THREE["members"]["judge"] == {"kind": "llama"}, "what is upgraded stays as it was"


@pytest.mark.parametrize("number", [2, 3])
def test_an_earlier_manifest_is_read_as_a_present_one(tmp_path: Path, number: int) -> None:
    manifest = write(tmp_path, **{**THREE, "format": number}).read_manifest()
    assert manifest is not None
    assert (manifest.format, manifest.digests) == (FORMAT, None)
    assert manifest.members["judge"] == {"kind": "classifier"}
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_what_is_given_is_not_written_over() -> None:
    given = {"reading": {"carried": ["label"]}, "names": ["a"], "largest_cell": 5}
    assert formats.upgraded({**THREE, "ingest": {**INGEST, **given}})["ingest"] == {**INGEST, **given}


@pytest.mark.parametrize("wrong", [{"ingest": None}, {"members": 3}, {"members": {"m": None}}, {"ingest": {}}])
def test_an_earlier_manifest_of_wrong_types_is_damaged(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DamagedManifestError, match=r"manifest\.json is damaged \((ingest|members)"):
        write(tmp_path, **{**THREE, **wrong}).read_manifest()


@pytest.mark.parametrize(("by", "writer"), [("7.1.0", "lmsys_ray 7.1.0"), (None, "a later version of lmsys_ray")])
def test_a_later_format_is_one_sentence_with_both_formats_and_versions(tmp_path: Path, by: Any, writer: str) -> None:
    with pytest.raises(UsageError) as refused:
        write(tmp_path, format=FORMAT + 5, lmsys_ray=by, whatever=[]).read_manifest()
    assert str(refused.value) == (
        f"{tmp_path}/manifest.json is of format {FORMAT + 5}, written by {writer}, while lmsys_ray {__version__} knows "
        f"formats up to {FORMAT}; continue with the version that wrote it or a later one, or choose another run "
        "directory"
    )


@pytest.mark.parametrize("number", [1, 0, -3])
def test_a_format_that_is_not_known_any_more_is_one_sentence(tmp_path: Path, number: int) -> None:
    with pytest.raises(UsageError, match=rf"is of format {number}, while lmsys_ray .* knows formats 2 to {FORMAT}; "):
        write(tmp_path, format=number).read_manifest()


@pytest.mark.parametrize("number", [None, "4", 4.0, True, []])
def test_a_format_that_is_no_number_is_damage(tmp_path: Path, number: Any) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": number}))
    with pytest.raises(DamagedManifestError, match="it names no format"):
        RunDirectory(tmp_path).read_manifest()


def test_a_lowered_format_does_not_spare_the_checksum(tmp_path: Path) -> None:
    run = write(tmp_path, **THREE)
    text = (tmp_path / "manifest.json").read_text().replace('"format": 3', '"format": 2')
    (tmp_path / "manifest.json").write_text(text.replace('"shard_rows": 10', '"shard_rows": 20'))
    with pytest.raises(DamagedManifestError, match="its checksum does not match"):
        run.read_manifest()
