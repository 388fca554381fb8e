"""What a run is made from is told by the whole of its files."""

import os
from pathlib import Path

from lmsys_ray.config import Settings
from lmsys_ray.identity import identity


def model_content(rows: Path, model: Path) -> str:
    member = {"kind": "llama", "model": str(model)}
    return identity(Settings(input=[str(rows)], output="x", members={"judge": member}))["members"]["judge"][
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
