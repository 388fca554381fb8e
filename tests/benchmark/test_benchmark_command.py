"""The whole command, nearly every side that a CPU has, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_llama
from tests.members.samples import CHAT

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_command_measures_its_sides(tmp_path: Path) -> None:
    sizes = {"max_position_embeddings": 256, "hidden_size": 64, "intermediate_size": 128}
    model = tiny_llama.make_model(tmp_path / "model", **sizes)
    (model / "chat_template.jinja").write_text(CHAT)
    adapter = tiny_llama.make_adapter(tmp_path / "adapter", **sizes)
    sides = ["notebook", "sorted", "packed", "int8_dynamic"]
    rows = [
        {"id": str(number), "prompt": f"say {number}", "response_a": "a" * number, "response_b": "b"}
        for number in range(130)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = ["--rows", "6", "--max-length", "128", "--repeats", "1", "--input", "in.jsonl", "--job-rows", "130"]
    size += ["--reward-rows", "3", "--encoder-rows", "4"]
    output = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "jobs" / "benchmark.py"), "--model", str(model), "--adapter", str(adapter)]
    done = subprocess.run(
        [*command, *size, "--sides", *sides, "--output", str(output)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "× notebook" in done.stdout
    content = json.loads(output.read_text())
    assert content["failed"] == {}
    assert list(content["sides"]) == sides
    found = content["sides"]
    assert found["packed"]["padding_share"] == 0
    assert found["notebook"]["padding_share"] >= found["sorted"]["padding_share"]
    assert all(found[name]["difference"] < 1e-5 for name in ("notebook", "sorted", "packed"))
    assert 1e-5 < found["int8_dynamic"]["difference"] < 0.5
    assert all(len(side["seconds"]) == 1 and side["peak_share"] > 0 for side in found.values())
    assert content["features"]["features:sparse"]["rows_per_second"] > 0
    assert content["job"].keys() == {"job:alone", "job:distributed", "overhead"}
    assert min(content["job"]["job:alone"], content["job"]["job:distributed"]) > 0
    reward, encoder = content["reward"], content["encoder"]
    assert reward["rows"] == 3
    assert encoder["rows"] == 4
    assert reward["long_prompts"] >= 3
    assert reward["tokens_saved"] > 0
    assert all(pair["difference"] <= pair["allowed"] and pair["ratio"] > 0 for pair in (reward, encoder))
    assert "of the tokens and" in done.stdout
    assert "times as fast as padded ones" in done.stdout
    assert "the whole job, distributed" in done.stdout


def test_an_adapter_without_its_model_is_refused() -> None:
    command = [sys.executable, str(ROOT / "jobs" / "benchmark.py"), "--adapter", "somewhere"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: --adapter needs --model, the model that it was trained on\n"
