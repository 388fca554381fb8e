"""Damages a run directory by chance: files cut, flipped, swapped, of another run, and JSON that says something else."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmsys_ray.run_directory import sealed_parquet as sealed

WILD: list[Any] = [
    *(None, True, -1, 0, 1, 3, 7.5, 10**9, 10**18, 10**30, 10**300, 1e308, float("nan"), float("inf")),
    *("", "x", "../x", "\0", "\ud800", "2026-13-45T99:99:99Z", [], [1], ["x"], [[]], {}, {"a": 1}, {"a": {"a": []}}),
]
GARBAGE = [b"", b"\0" * 900, b"{", b"[]", b"null", b"[" * 99_999, b"\xff\xfe", b"PAR1" * 8, b'{"format": 3}', b"3"]


def files_of(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


def damage(run: Path, foreign: Path, chance: random.Random) -> str:
    """Damages one file of `run`, and says which and how; `foreign` is another run's directory with the same files."""
    kinds = ["manifest.json", "manifest.json", "settings.yaml", "rejects.jsonl", "shards", "shards", "scores"]
    by_kind = {kind: [path for path in files_of(run) if path.relative_to(run).parts[0] == kind] for kind in kinds}
    file = chance.choice(by_kind[chance.choice([kind for kind in kinds if by_kind[kind]])])
    ways: list[Callable[[Path, random.Random], None]] = [cut, flip, garbage, gone, folder]
    ways += [edit, edit_soundly] if file.suffix == ".json" else [edit_lines] if file.suffix == ".jsonl" else []
    ways += [reseal, reseal] if file.suffix == ".parquet" else []
    others = [path for path in files_of(run) if path.suffix == file.suffix and path != file]
    way = chance.choice([*ways, "foreign", "sibling"])
    if way == "foreign" and (foreign / file.relative_to(run)).exists():
        shutil.copy(foreign / file.relative_to(run), file)
    elif isinstance(way, str):
        shutil.copy(chance.choice(others) if others else foreign / "submission.csv", file)
    else:
        way(file, chance)
    return f"{file.relative_to(run)}: {way if isinstance(way, str) else way.__name__}"


def cut(file: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data) + 1)])


def flip(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 4)) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def garbage(file: Path, chance: random.Random) -> None:
    file.write_bytes(chance.choice(GARBAGE))


def gone(file: Path, chance: random.Random) -> None:
    file.unlink()


def folder(file: Path, chance: random.Random) -> None:
    file.unlink()
    file.mkdir()


def edit(file: Path, chance: random.Random) -> None:
    """Changes a place in a JSON file."""
    file.write_text(json.dumps(changed(json.loads(file.read_text()), chance)))


def edit_soundly(file: Path, chance: random.Random) -> None:
    """Changes a place in a manifest and puts the right checksum below, as a program would that knows how."""
    values = changed(json.loads(file.read_text()), chance)
    if isinstance(values, dict):
        values.pop("checksum", None)
        values["checksum"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(values))


def edit_lines(file: Path, chance: random.Random) -> None:
    """Changes a place in a line of JSON, drops a line, or repeats one."""
    lines = file.read_text().splitlines()
    place = chance.randrange(len(lines))
    way = chance.random()
    if way < 0.6:
        lines[place] = json.dumps(changed(json.loads(lines[place]), chance))
    elif way < 0.8:
        del lines[place]
    else:
        lines.insert(place, lines[place])
    file.write_text("".join(f"{line}\n" for line in lines))


def changed(content: Any, chance: random.Random) -> Any:
    """Returns JSON with one value changed, removed or added."""
    part = content
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        if not keys:
            return content
        key = chance.choice(keys)
        if isinstance(part[key], dict | list) and part[key] and chance.random() < 0.75:
            part = part[key]
            continue
        if chance.random() < 0.25:
            del part[key]
        else:
            part[key] = chance.choice(WILD)
        return content


def reseal(file: Path, chance: random.Random) -> None:
    """Changes a table in its form or its metadata, and seals it with its own label, as a faulty version might."""
    data = file.read_bytes()
    table, label = sealed.from_bytes(data), sealed.label_of(data)
    file.write_bytes(sealed.to_bytes(chance.choice(RESEALED)(table, chance), label))


def _other_metadata(table: pa.Table, chance: random.Random) -> pa.Table:
    metadata = dict(table.schema.metadata or {})
    for key, value in metadata.items():
        if key == b"lmsys_ray.covered":
            metadata[key] = chance.choice(
                [b"", b"[", b"{}", b"3", value.replace(b"0", b'"x"'), value.replace(b"rows", b"r")]
            )
    return table.replace_schema_metadata(metadata)


def _without_metadata(table: pa.Table, chance: random.Random) -> pa.Table:
    return table.replace_schema_metadata(None)


def _without_column(table: pa.Table, chance: random.Random) -> pa.Table:
    return table.drop_columns([chance.choice(table.column_names)])


def _other_type(table: pa.Table, chance: random.Random) -> pa.Table:
    place = chance.randrange(table.num_columns)
    values = chance.choice(
        [pa.array(["x"] * table.num_rows), pa.nulls(table.num_rows), pa.array([[1]] * table.num_rows)]
    )
    return table.set_column(place, table.column_names[place], values)


def _fewer_rows(table: pa.Table, chance: random.Random) -> pa.Table:
    return table.slice(chance.randrange(3), chance.randrange(table.num_rows))


def _without_numbers(table: pa.Table, chance: random.Random) -> pa.Table:
    numbers = [name for name in table.column_names if pa.types.is_floating(table[name].type)]
    for name in numbers:
        wild = pa.array([chance.choice((float("nan"), -1.0, 5.0))] * table.num_rows, pa.float32())
        table = table.set_column(table.column_names.index(name), name, wild)
    return table if numbers else _without_column(table, chance)


RESEALED: list[Callable[[pa.Table, random.Random], pa.Table]] = [
    *(_other_metadata, _other_metadata, _without_metadata, _without_column, _other_type, _fewer_rows),
    _without_numbers,
]
