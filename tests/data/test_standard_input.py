"""What a pipe brings is kept as a file whose name fits its content, and is the input of every later start."""

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from lmsys_ray.data.readers import head, read_rows
from lmsys_ray.data.readers.standard_input import kept
from lmsys_ray.data.schemas.recognise import recognise
from lmsys_ray.errors import UsageError

ROOT = Path(__file__).parents[2]
EXAMPLES, JOB = ROOT / "docs" / "examples", ROOT / "jobs" / "score.py"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(
    ("name", "ending"), [("contest.csv", ".csv"), ("trl.jsonl", ".jsonl"), ("llama_factory.json", ".jsonl")]
)
def test_text_is_read_as_from_its_file(tmp_path: Path, name: str, ending: str, packed: str) -> None:
    data = (EXAMPLES / name).read_bytes()
    path = kept(io.BytesIO(PACKED[packed](data)), tmp_path / "run")
    assert path == str(tmp_path / "run" / f"stdin{ending}{packed}")
    reading = recognise(head(path)).reading
    found, expected = (
        [row for table in read_rows(file, reading=reading, name="x") for row in table.to_pylist()]
        for file in (path, str(EXAMPLES / name))
    )
    assert found == expected
    assert kept(io.BytesIO(b""), tmp_path / "run") == path
    assert kept(io.BytesIO(PACKED[packed](data)), tmp_path / "run") == path
    with pytest.raises(UsageError, match=r"is not what .* holds, with which the run began"):
        kept(io.BytesIO(b"id,prompt\n"), tmp_path / "run")
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_parquet_comes_through_a_pipe(tmp_path: Path) -> None:
    path = kept(io.BytesIO((EXAMPLES / "wsdm.parquet").read_bytes()), tmp_path)
    assert path.endswith("stdin.parquet")


def test_nothing_in_the_pipe_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(JOB), "--input", "-", "--output", str(tmp_path / "run")]
    ended = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert ended.returncode == 2
    assert (
        ended.stderr.decode()
        .strip()
        .endswith("error: input: standard input is empty; pipe a file into the command, or name one")
    )
