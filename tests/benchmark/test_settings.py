"""What a benchmark measures unless told otherwise."""

import json
from pathlib import Path

from lmsys_ray.benchmark.settings import BenchmarkSettings
from lmsys_ray.checkpoints.sources import read_scoring


def test_the_packaged_model_is_read_as_its_adapter_learnt() -> None:
    member = BenchmarkSettings(max_length=300).member()
    trained = read_scoring("packaged:smollm2-135m", "packaged:smollm2-135m-lora")
    assert trained["template"] == "labelled"
    assert (member.layers, member.template, member.truncation) == (
        trained.get("layers"),
        trained["template"],
        trained["truncation"],
    )
    assert member.max_length == 300


def test_so_is_an_adapter_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "scoring.json").write_text(json.dumps({"layers": 3, "template": "a {response_a} b {response_b}"}))
    member = BenchmarkSettings(model="somewhere", adapter=str(tmp_path)).member()
    assert member.layers == 3
    assert member.template == "a {response_a} b {response_b}"


def test_random_weights_have_all_their_blocks() -> None:
    assert BenchmarkSettings(model_shape="smollm2-135m").member().layers is None
