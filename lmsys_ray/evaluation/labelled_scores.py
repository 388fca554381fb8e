"""Joins a run's scores with labels, by id, shard by shard."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from lmsys_ray import CLASSES
from lmsys_ray.config.messages import validate_settings
from lmsys_ray.config.setting_texts import check_yaml
from lmsys_ray.data.conversations import CellForm, decode_cell
from lmsys_ray.data.folds import prompt_groups
from lmsys_ray.data.labels import Labels
from lmsys_ray.ensemble.blend import aligned
from lmsys_ray.ensemble.join import set_failed_aside
from lmsys_ray.ensemble.links import Link
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.evaluation.ids import LabelIds
from lmsys_ray.evaluation.writing_system import script_of
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.score_checks import TWO_SCORES
from lmsys_ray.scoring.links import links_of
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import read_bytes


@dataclass(frozen=True)
class Counts:
    """Counts of ids on both sides of the join."""

    run: int
    labels: int
    judged: int
    """Labelled and scored."""
    rejected: int
    """Labelled, but the run could not score the row and gave it the class prior."""
    set_aside: int
    """Labelled and in the blend, but not judged: a member of weight 0 could not score the row."""
    priors: int
    """Ids of the run with the class prior, labelled or not."""
    only_run: int
    only_labels: int
    unreadable_labels: int
    ids_as_floats: int
    """Ids that the labels have as 123.0 and the run as 123."""


@dataclass(frozen=True)
class LabelledScores:
    """The labelled rows that a run scored."""

    members: dict[str, np.ndarray]
    """Each member's probabilities [rows, 3]."""
    differences: dict[str, np.ndarray]
    """For members that score each response by itself: the score of A less that of B [rows]."""
    orders: dict[str, tuple[np.ndarray, np.ndarray]]
    """For members that scored both orders: the probabilities of A/B and of B/A, swapped back [rows, 3]."""
    labels: np.ndarray
    """The chosen class as 0, 1 or 2 [rows]."""
    prompts: np.ndarray
    """A number for each distinct prompt, as by `lmsys_ray.data.folds.prompt_groups` [rows]."""
    slices: dict[str, np.ndarray]
    """By property, such as `script`: the value of each row, None where it has none [rows]."""
    rejected_labels: np.ndarray
    """The classes of the labelled rows that could not be scored [rejected]."""
    counts: Counts


def settings_of(run: RunDirectory) -> Settings:
    """Returns the settings that a run was last started with; raises `UsageError` if it is not a run directory."""
    path = run.path / "settings.yaml"
    try:
        text = read_bytes(path).decode()
        check_yaml(text)
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(f"--run: {path} cannot be read ({reason}); name a run directory of score.py") from None
    return validate_settings(Settings, values if isinstance(values, dict) else {})


def scored_members(run: RunDirectory, settings: Settings) -> list[str]:
    """Returns the members that scored every shard: those in the blend, and those of weight 0 that were scored earlier.

    Raises `UsageError` where the run is not finished.
    """
    shards = _shards(run)
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


def _shards(run: RunDirectory) -> int:
    manifest = run.read_manifest()
    return manifest.ingested.shards if manifest and manifest.ingested else 0


def join(run: RunDirectory, settings: Settings, labels: Labels) -> LabelledScores:
    """Joins the scores of `run` with `labels`; of the texts, only labelled prompts are kept in memory.

    Raises `RunError` where no id is in both, where no labelled row was scored, or where all labels are of one class or
    one prompt.
    """
    names = scored_members(run, settings)
    manifest = run.read_manifest()
    run = RunDirectory(run.path, manifest.binding if manifest else run.binding)
    counted = manifest.ingested.rows if manifest and manifest.ingested else 0
    links = links_of(run, settings, names, _shards(run), counted)
    ids = LabelIds(labels.ids)
    found = _Collected()
    for number in range(_shards(run)):
        shard = run.read_shard(number, ["row", "id", "prompt", "rejected"])
        scores = {name: run.read_scores(name, number) for name in names}
        blended = {name: table for name, table in scores.items() if settings.members[name].weight > 0}
        has_prior = set_failed_aside(shard, blended)[0]["rejected"]
        shard, scores, _ = set_failed_aside(shard, scores)
        for name in names:
            aligned(shard, scores[name], str(run.score(name, number)), links.get(name))
        shard = shard.append_column("place", ids.places(shard["id"]))
        found.add(shard, has_prior, _scored_rows(shard, scores, settings.cells))
    ids.check(str(run.path))
    table, rejected_labels = (
        pa.concat_tables(found.scored, promote_options="default"),
        labels.classes[np.concatenate(found.rejected)],
    )
    counts = _counts(found, table.num_rows, labels, ids)
    if counts.only_run == counts.run:
        raise ids.missed(str(run.path), run.read_shard(0, ["id"])["id"][0].as_py())
    place, prompts = table["place"].to_numpy(), prompt_groups(table["prompt"].to_pylist(), settings.cells)
    _check_judgeable(labels.classes[place], prompts, counts, run)
    both = [name for name in names if _column(name, "a_swapped") in table.column_names]
    source = {} if labels.sources is None else {"source": np.array(labels.sources, dtype=object)[place]}
    return LabelledScores(
        members={name: _probabilities(table, name, link=links.get(name)) for name in names},
        differences={name: _differences(table, name) for name in links},
        orders={n: (_probabilities(table, n, "_plain"), _probabilities(table, n, "_swapped")) for n in both},
        labels=labels.classes[place],
        prompts=prompts,
        slices={**source, "script": np.array(table["script"].to_pylist(), dtype=object)},
        rejected_labels=rejected_labels,
        counts=counts,
    )


@dataclass
class _Collected:
    """What was collected from the shards so far."""

    scored: list[pa.Table] = field(default_factory=list)
    rejected: list[np.ndarray] = field(default_factory=list)
    """Places in the labels of rows that have the class prior [rejected]."""
    set_aside: int = 0
    rows: int = 0
    priors: int = 0

    def add(self, shard: pa.Table, has_prior: pa.ChunkedArray, scored: pa.Table) -> None:
        """Adds a shard, in which the rows that any member could not score are marked as rejected."""
        self.scored.append(scored)
        self.rejected.append(shard["place"].filter(has_prior).drop_null().to_numpy())
        out_of_blend = pc.and_not(shard["rejected"], has_prior)
        self.set_aside += len(shard["place"].filter(out_of_blend).drop_null())
        self.rows += shard.num_rows
        self.priors += pc.sum(has_prior).as_py() or 0


def _counts(found: _Collected, judged: int, labels: Labels, ids: LabelIds) -> Counts:
    rejected = sum(map(len, found.rejected))
    labelled = judged + rejected + found.set_aside
    return Counts(
        run=found.rows,
        labels=len(labels.ids),
        judged=judged,
        rejected=rejected,
        set_aside=found.set_aside,
        priors=found.priors,
        only_run=found.rows - labelled,
        only_labels=len(labels.ids) - labelled,
        unreadable_labels=labels.unreadable,
        ids_as_floats=ids.found_as_whole,
    )


def _scored_rows(shard: pa.Table, members: Mapping[str, pa.Table], cells: CellForm) -> pa.Table:
    """Returns the labelled rows of a shard that were scored: place in the labels, prompt, script and scores."""
    scorable = shard.filter(pc.invert(shard["rejected"]))
    places = scorable["place"]
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


def _column(member: str, column: str) -> str:
    return f"{member}/{column}"


def _differences(table: pa.Table, member: str) -> np.ndarray:
    a, b = (table[_column(member, name)].to_numpy().astype(np.float64) for name in TWO_SCORES)
    return a - b


def _probabilities(table: pa.Table, member: str, order: str = "", link: Link | None = None) -> np.ndarray:
    """Returns a member's probabilities [rows, 3] in float64, normalised to a sum of 1."""
    if link is not None:
        return link.probabilities(_differences(table, member))
    values = np.column_stack([table[_column(member, name + order)].to_numpy() for name in CLASSES]).astype(np.float64)
    return values / values.sum(axis=1, keepdims=True)


def _check_judgeable(classes: np.ndarray, prompts: np.ndarray, counts: Counts, run: RunDirectory) -> None:
    if not len(classes):
        unscored = counts.rejected + counts.set_aside
        raise RunError(f"all {unscored} labelled rows of {run.path} were rejected; their reasons are in {run.rejects}")
    if len(np.unique(classes)) == 1:
        raise RunError(f"all {len(classes)} rows are labelled {CLASSES[classes[0]]}; label rows of several classes")
    if len(np.unique(prompts)) == 1:
        raise RunError(
            f"all {len(classes)} rows are of one prompt; label more prompts, for the intervals come from several"
        )
