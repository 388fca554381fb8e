"""Input and models on the Hugging Face hub, by `hf://`: here a small server that speaks its calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import ROOT, finish, make_lightgbm, make_llama, start, write_input, write_settings
from tests.storage.hub import hub_with

READ = """
import json
from lmsys_ray.storage.cache import local_copy
from lmsys_ray.data.readers import expand_inputs, read_rows
(url,) = expand_inputs(["hf://datasets/me/pairs/today/*.csv"])
ids = [row["id"] for table in read_rows(url) for row in table.to_pylist()]
copies = [local_copy(name, ("*.json",)) for name in ("hf://me/judge", "hf://me/judge@main")]
print(json.dumps([url, ids, [{file.name: file.read_text() for file in copy.iterdir()} for copy in copies]]))
"""


def there(url: str, folder: Path) -> dict[str, str]:
    """Returns the variables of a process for which the hub is at `url`: libraries read them when they load."""
    return {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "LMSYS_RAY_CACHE": str(folder / "cache")}


def test_input_is_read_and_a_model_fetched(tmp_path: Path) -> None:
    ids = write_input(tmp_path / "in.csv", 30)
    pairs = {"today/in.csv": (tmp_path / "in.csv").read_bytes(), "README.md": b"pairs"}
    judge = {"config.json": b"{}", "more/config.json": b"[]", "model.safetensors": b"x"}
    with hub_with({"datasets/me/pairs": pairs, "models/me/judge": judge}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", READ],
            env={**os.environ, "PYTHONPATH": str(ROOT), **there(hub.url, tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["hf://datasets/me/pairs/today/in.csv", ids, [{"config.json": "{}"}] * 2]


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.soak
def test_a_job_whose_input_and_models_lie_on_the_hub_writes_what_a_local_one_writes(tmp_path: Path) -> None:
    llama, lightgbm = {**make_llama(tmp_path), "threads": 1}, make_lightgbm(tmp_path)
    write_input(tmp_path / "in.csv", 40, {5: '["unclosed'})
    write_settings(tmp_path, {"llama": llama, "lightgbm": lightgbm})
    code, said = finish(tmp_path)
    assert code == 0, said
    expected = (tmp_path / "run" / "submission.csv").read_bytes()

    repositories = {f"models/me/{name}": files_of(tmp_path / name) for name in ("llama", "adapter", "lightgbm")}
    repositories["datasets/me/pairs"] = {"today/in.csv": (tmp_path / "in.csv").read_bytes(), "README.md": b"pairs"}
    llama |= {"model": "hf://me/llama", "adapter": "hf://me/adapter@main"}
    lightgbm |= {"artifacts": "hf://me/lightgbm"}
    urls = {"input": "hf://datasets/me/pairs/today/*.csv", "output": str(tmp_path / "from_hub")}
    write_settings(tmp_path, {"llama": llama, "lightgbm": lightgbm}, **urls)
    with hub_with(repositories) as hub:
        process = start(tmp_path, variables=there(hub.url, tmp_path))
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert (tmp_path / "from_hub" / "submission.csv").read_bytes() == expected
