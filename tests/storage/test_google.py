"""Input, models and a run directory on Google's storage: here an emulator, whose packages no other test needs.

The emulator knows no conditional puts, so that two starts at once are not tried here.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmsys_ray.data.readers import expand_inputs, read_rows
from lmsys_ray.errors import RunError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.cache import local_copy
from lmsys_ray.storage.files import path_of
from tests.fault_tolerance.jobs import ROOT, make_lightgbm, write_input
from tests.ingest.test_resume import LocalRows, run_ingest, small_blocks, write_inputs
from tests.storage.test_inputs import tables

__all__ = ["small_blocks"]

gcsfs = pytest.importorskip("gcsfs", reason="needs pip install gcsfs")
emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs pip install gcp-storage-emulator")


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket of an emulator."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else credentials are looked for on the network
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://bucket"
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.stop()


def stored(url: str, files: list[str]) -> list[str]:
    urls = [f"{url}/in/{Path(file).name}" for file in files]
    for file, name in zip(files, urls, strict=True):
        storage.write_bytes(path_of(name), Path(file).read_bytes())
    return urls


@pytest.mark.usefixtures("small_blocks")
def test_input_is_read_and_a_run_directory_filled_as_local_ones(google: str, tmp_path: Path) -> None:
    files = write_inputs(tmp_path, 120)[:4]
    urls = stored(google, files)
    assert expand_inputs([f"{google}/in/*.csv", f"{google}/in/[cd].*"]) == [urls[0], urls[2], urls[3]]
    for local, url in zip(files, urls, strict=True):
        assert [table.to_pylist() for table in read_rows(url)] == [table.to_pylist() for table in read_rows(local)]

    counts, local_run = run_ingest(tmp_path / "run", LocalRows(files))
    run = RunDirectory(f"{google}/run")
    with pytest.raises(InterruptedError):
        run_ingest(run.path, LocalRows(urls, 12))
    assert run_ingest(run.path, LocalRows(urls))[0] == counts
    assert tables(storage.names(run.shards)) == tables(storage.names(local_run.shards))
    said = storage.read_bytes(run.rejects).decode().replace(f"{google}/in", str(tmp_path))
    assert said == local_run.rejects.read_text()
    with storage.atomic_file(run.submission) as aside:
        aside.write_bytes(b"x" * (6 << 20))
    assert storage.sizes(run.path)["submission.csv"] == 6 << 20
    storage.remove(run.submission)
    assert not storage.exists(run.submission)


def test_a_model_is_fetched(google: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    for name in ("config.json", "model.safetensors"):
        storage.write_bytes(path_of(f"{google}/models/judge/{name}"), name.encode() * 1000)
    copy = local_copy(f"{google}/models/judge")
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        name: name.encode() * 1000 for name in ("config.json", "model.safetensors")
    }
    with pytest.raises(RunError, match=r"cannot be written \(not there: "):
        storage.write_bytes(path_of("gs://no-such-bucket/run/manifest.json"), b"")


@pytest.mark.slow
def test_a_whole_job_writes_what_a_local_one_writes(google: str, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 48, {5: '["unclosed'})
    member = make_lightgbm(tmp_path)
    values = {"input": str(tmp_path / "in.csv"), "shard_rows": 8, "members": {"lightgbm": member}}
    run_job({**values, "output": str(tmp_path / "run")})
    expected = (tmp_path / "run" / "submission.csv").read_bytes()

    (url,) = stored(google, [str(tmp_path / "in.csv")])
    for file in Path(member["artifacts"]).iterdir():
        storage.write_bytes(path_of(f"{google}/trees/{file.name}"), file.read_bytes())
    moved = {**values, "input": url, "members": {"lightgbm": {**member, "artifacts": f"{google}/trees"}}}
    run_job({**moved, "output": f"{google}/run"})
    run = RunDirectory(f"{google}/run")
    assert storage.read_bytes(run.submission) == expected

    storage.remove(run.score("lightgbm", 3))
    storage.remove(run.submission)
    again = run_job({**moved, "output": f"{google}/run"})
    assert storage.read_bytes(run.submission) == expected
    assert "lightgbm: 8 rows in " in again


def run_job(values: dict[str, Any]) -> str:
    """Runs score.py in a process of its own, whose workers see the emulator too; returns what it said."""
    sets = [f"{key}={json.dumps(value)}" for key, value in values.items() if key not in ("input", "output")]
    command = [sys.executable, "jobs/score.py", "--input", values["input"], "--output", values["output"]]
    flags = [part for text in sets for part in ("--set", text)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
