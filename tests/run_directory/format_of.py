"""What the format of a run directory is, as the code has it: `python -m tests.run_directory.format_of` stores it.

A stored file is what a format was, and is not written over: `CONTRIBUTING.md` says what to do when the format changes.
"""

import json
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import SHARD
from lmsys_ray.data.readers import ReadPosition
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.ingest.rejects_log import RejectsLog
from lmsys_ray.ingest.resume import Covered
from lmsys_ray.members.protocol import KEPT, Scores
from lmsys_ray.run_directory.formats import FORMAT
from lmsys_ray.run_directory.history import History
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import Holder
from lmsys_ray.run_directory.manifest import Binding, Manifest
from lmsys_ray.run_directory.published_rejects import Part
from lmsys_ray.scoring.score_tables import score_table, with_failed

FOLDER = Path(__file__).parent / "formats"


def of_the_code() -> dict[str, Any]:
    """Returns the format as JSON can hold it: what is in the files, and their names."""
    run, binding = RunDirectory("run"), Binding("INGEST", {"m": "MEMBER"})
    probabilities = Scores(np.full((2, 3), 1 / 3), tokens=np.ones(2, np.int64))
    two = Scores(None, {"score_a": np.zeros(2, np.float32), "score_b": np.zeros(2, np.float32)})
    rows = pa.chunked_array([[0, 1]])
    position = Covered(place=0).attach_to(SHARD.empty_table())
    return {
        "format": FORMAT,
        "manifest": _without_words(Manifest.model_json_schema()),
        "reading": [field.name for field in fields(Reading)],
        "start": sorted(History(run)._record),
        "lock": _without_words(TypeAdapter(Holder).json_schema()),
        "labels": [binding.shard(4), binding.score("m", 4)],
        "names": [run.shard(4).name, str(run.score("m", 4)), Part(0, 168, "0" * 16).name],
        "shards": {field.name: str(field.type) for field in [*SHARD, *CARRIED]},
        "covered": {key.decode(): value.decode() for key, value in (position.schema.metadata or {}).items()},
        "position": list(ReadPosition._fields),
        "scores": _columns(with_failed(score_table(rows, probabilities, swap=False), {2: "reason"})),
        "both orders": _columns(score_table(rows, probabilities, swap=True)),
        "two scores": _columns(score_table(rows, two, swap=False)),
        "kept": {field.name: str(field.type) for field in KEPT},
        "reject": _reject(),
    }


def _reject() -> list[str]:
    """Returns the keys of a reject of ingest, as in the parts beside the shards."""
    row = {"number": [0], "id": ["x"], "reason": ["why"]}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(folder)
        run.prepare()
        log = RejectsLog(run, 0)
        log.write("in.csv", pa.table(row))
        log.flush(log.bytes)
        log.publish()
        return list(json.loads(run.rejects.read_bytes()))


def _columns(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def _without_words(schema: Any) -> Any:
    """Returns a JSON schema without what only people read."""
    if isinstance(schema, list):
        return [_without_words(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    words = {"title", "description"}
    return {key: _without_words(item) for key, item in schema.items() if key not in words or isinstance(item, dict)}


def stored(number: int = FORMAT) -> Any:
    """Returns a stored format."""
    return json.loads((FOLDER / f"{number}.json").read_text())


def main() -> None:
    path = FOLDER / f"{FORMAT}.json"
    if path.exists():
        sys.exit(f"{path} is there: raise FORMAT in formats.py; remove the file only where no release wrote {FORMAT}")
    path.write_text(json.dumps(of_the_code(), indent=1) + "\n")


if __name__ == "__main__":
    main()
