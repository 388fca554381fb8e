"""Joins a run's scores with labels, by id, shard by shard."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from lmsys_ray import CLASSES
from lmsys_ray.blend import aligned
from lmsys_ray.config import Settings
from lmsys_ray.conversations import CellForm, decode_cell
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.evaluation.labels import Labels
from lmsys_ray.evaluation.scripts import script_of
from lmsys_ray.layers import checked
from lmsys_ray.run import RunDirectory, read_table
from lmsys_ray.scores import failed_set_aside
from lmsys_ray.storage import read_bytes
from lmsys_ray.training.folds import prompt_groups


@dataclass(frozen=True)
class Counts:
    """Ids on either side of the join."""

    run: int
    labels: int
    judged: int
    """Labelled and scored."""
    rejected: int
    """Labelled, but the run could not score the row and gave it the class prior."""
    only_run: int
    only_labels: int
    unreadable_labels: int


@dataclass(frozen=True)
class Joined:
    """The labelled rows that a run scored."""

    members: dict[str, np.ndarray]
    """Each member's probabilities [rows, 3]."""
    orders: dict[str, tuple[np.ndarray, np.ndarray]]
    """Of members that scored both orders: the probabilities of A/B and of B/A, classes put back [rows, 3]."""
    labels: np.ndarray
    """The chosen class as 0, 1 or 2 [rows]."""
    prompts: np.ndarray
    """A number for each distinct prompt, as `lmsys_ray.training.folds.prompt_groups` tells them apart [rows]."""
    slices: dict[str, np.ndarray]
    """What rows can be told apart by, such as `script`: a name for each row, None where it has none [rows]."""
    rejected_labels: np.ndarray
    """The classes of the labelled rows that could not be scored [rejected]."""
    counts: Counts


def settings_of(run: RunDirectory) -> Settings:
    """Returns the settings that a run was last started with; raises `UsageError` where it is no run directory."""
    path = run.path / "settings.yaml"
    try:
        values = yaml.safe_load(read_bytes(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"--run: {path} cannot be read ({reason}); name a run directory of score.py") from None
    return checked(Settings, values if isinstance(values, dict) else {})


def scored_members(run: RunDirectory, settings: Settings) -> list[str]:
    """Returns the members that scored every shard: all in the blend, and those of weight 0 that were scored before.

    Raises `UsageError` where the run was not finished.
    """
    shards = run.read_manifest().get("ingested", {}).get("shards", 0)
    if not shards:
        raise UsageError(f"--run: {run.path} holds no scored rows; score some with score.py")
    missing = {name: len(run.missing(name, shards)) for name in settings.members}
    for name, member in settings.members.items():
        if missing[name] and member.weight > 0:
            raise UsageError(
                f"--run: {run.path} lacks {missing[name]} of {shards} shards of {name}; finish it with the command "
                "that started it"
            )
    return [name for name in settings.members if not missing[name]]


def join(run: RunDirectory, settings: Settings, labels: Labels) -> Joined:
    """Joins the scores of `run` with `labels`; of the texts, the labelled prompts alone are held.

    Raises `RunError` where no id is in both, where no labelled row was scored, or where all labels are of one class.
    """
    names = scored_members(run, settings)
    scored, rejected, rows = [], [], 0
    for number in range(run.read_manifest()["ingested"]["shards"]):
        shard = read_table(run.shard(number), ["row", "id", "prompt", "rejected"])
        scores = {name: read_table(run.score(name, number)) for name in names}
        shard, scores, _ = failed_set_aside(shard, scores)
        for name in names:
            aligned(shard, scores[name], str(run.score(name, number)))
        scored.append(_scored_rows(shard, scores, labels, settings.cells))
        rejected.append(_places(shard.filter(shard["rejected"]), labels).drop_null())
        rows += shard.num_rows
    table = pa.concat_tables(scored)
    rejected_labels = labels.classes[pa.chunked_array(rejected, pa.int32()).to_numpy()]
    _check_judgeable(table, labels, len(rejected_labels), run)
    found = table.num_rows + len(rejected_labels)
    place = table["place"].to_numpy()
    counts = Counts(
        run=rows,
        labels=len(labels.ids),
        judged=table.num_rows,
        rejected=len(rejected_labels),
        only_run=rows - found,
        only_labels=len(labels.ids) - found,
        unreadable_labels=labels.unreadable,
    )
    both = [name for name in names if _column(name, "a_swapped") in table.column_names]
    source = {} if labels.sources is None else {"source": np.array(labels.sources, dtype=object)[place]}
    return Joined(
        members={name: _probabilities(table, name) for name in names},
        orders={n: (_probabilities(table, n, "_plain"), _probabilities(table, n, "_swapped")) for n in both},
        labels=labels.classes[place],
        prompts=prompt_groups(table["prompt"].to_pylist(), settings.cells),
        slices={**source, "script": np.array(table["script"].to_pylist(), dtype=object)},
        rejected_labels=rejected_labels,
        counts=counts,
    )


def _scored_rows(shard: pa.Table, members: Mapping[str, pa.Table], labels: Labels, cells: CellForm) -> pa.Table:
    """Returns the labelled rows of a shard that were scored: place in the labels, prompt, script, members' scores."""
    scorable = shard.filter(pc.invert(shard["rejected"]))
    places = _places(scorable, labels)
    labelled = places.is_valid()
    prompts = scorable["prompt"].filter(labelled).to_pylist()
    columns = {
        "place": places.filter(labelled),
        "prompt": pa.array(prompts, pa.large_string()),
        "script": pa.array([script_of(" ".join(decode_cell(prompt, cells))) for prompt in prompts], pa.string()),
    }
    for name, scores in members.items():
        for column in scores.drop_columns("row").column_names:
            columns[_column(name, column)] = scores[column].filter(labelled)
    return pa.table(columns)


def _places(rows: pa.Table, labels: Labels) -> pa.ChunkedArray:
    """Returns where the labels have each row's id, null where they have it not [rows]."""
    return pc.index_in(rows["id"], value_set=labels.ids)


def _column(member: str, column: str) -> str:
    return f"{member}/{column}"


def _probabilities(table: pa.Table, member: str, order: str = "") -> np.ndarray:
    """Returns a member's probabilities [rows, 3], brought from float32 to a sum of 1."""
    values = np.column_stack([table[_column(member, name + order)].to_numpy() for name in CLASSES]).astype(np.float64)
    return values / values.sum(axis=1, keepdims=True)


def _check_judgeable(scored: pa.Table, labels: Labels, rejected: int, run: RunDirectory) -> None:
    if not scored.num_rows and not rejected:
        raise RunError(f"no id of the labels is in {run.path}; give the labels of the rows that were scored")
    if not scored.num_rows:
        raise RunError(f"all {rejected} labelled rows of {run.path} were rejected; their reasons are in {run.rejects}")
    classes = np.unique(labels.classes[scored["place"].to_numpy()])
    if len(classes) == 1:
        raise RunError(f"all {scored.num_rows} rows are labelled {CLASSES[classes[0]]}; label rows of several classes")
