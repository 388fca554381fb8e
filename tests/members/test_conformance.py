"""What the pipeline relies on with every kind of member; `docs/adding-a-member.md` says it in words."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lmsys_ray import CLASSES, SWAPPED
from lmsys_ray.cluster.pool import ENCODE_CPUS
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.config.messages import validate_settings
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.orders import both_orders, exchanged
from lmsys_ray.members.protocol import CONVERSATIONS, LANES, MemberKind, MemberSettings, Scores
from lmsys_ray.members.registry import kind_named, names, validated
from lmsys_ray.run_directory.score_checks import TWO_SCORES
from lmsys_ray.scoring.fingerprint import check_same_run, digests, fingerprint
from lmsys_ray.scoring.score_tables import fault_in, score_table
from lmsys_ray.scoring.settings import Settings
from tests.members.lightgbm.texts import conversations
from tests.members.samples import SAMPLES, Sample

ROWS = 12


@dataclass(frozen=True)
class Member:
    """A member of a kind, loaded."""

    sample: Sample
    folder: Path
    values: dict[str, Any]
    kind: MemberKind[Any]
    encoder: Any
    scorer: Any

    @property
    def settings(self) -> MemberSettings:
        return validated(self.values)

    def encode(self, rows: pa.Table) -> pa.Table:
        return self.encoder.encode(rows) if self.encoder else rows

    def score(self, rows: pa.Table) -> Scores:
        scores: Scores = self.scorer.score(self.encode(rows))
        return scores

    def digest(self, **changes: Any) -> str:
        return digest({**self.values, **changes}, self.folder)


def fingerprint_of(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns what a run of a member with these settings is made from."""
    rows = folder / "in.csv"
    rows.write_text("id,prompt,response_a,response_b\n1,a,b,c\n")
    settings = Settings.model_validate({"input": str(rows), "output": "run", "members": {"member": values}})
    return fingerprint(settings)


def digest(values: dict[str, Any], folder: Path) -> str:
    """Returns what tells a run's scores of a member with these settings from those of others."""
    return digests(fingerprint_of(values, folder)).members["member"]


@pytest.fixture(scope="module", params=names())
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Member:
    name = request.param
    assert name in SAMPLES, f"the kind {name} has no sample in tests/members/samples.py"
    sample, kind, folder = SAMPLES[name], kind_named(name), tmp_path_factory.mktemp(name)
    values = {"kind": name, **sample.make(folder), **sample.settings}
    settings = kind.preflight(validated(values), "members.member")
    return Member(sample, folder, values, kind, kind.encoder(settings, "auto"), kind.scorer(settings, "auto"))


def rows_of(count: int = ROWS) -> pa.Table:
    return conversations(count, seed=11)


def outputs_of(scores: Scores) -> np.ndarray:
    """Returns what a member says of rows: probabilities [rows, 3], or the scores of both responses [rows, 2]."""
    if scores.probabilities is not None:
        return scores.probabilities
    return np.column_stack([scores.raw[name] for name in TWO_SCORES])


def test_scores_are_of_each_row(member: Member) -> None:
    rows = rows_of()
    encoded = member.encode(rows)
    assert encoded["row"].to_pylist() == rows["row"].to_pylist()
    scores = member.scorer.score(encoded)
    assert fault_in(scores, ROWS) is None
    outputs = outputs_of(scores)
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()
    if scores.probabilities is not None:
        assert (outputs >= 0).all()
        np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(outputs, axis=0).max() > 1e-3, "the sample gives all rows the same scores"
    assert not scores.failed
    assert all(values.shape == (ROWS,) for values in scores.raw.values())
    assert scores.tokens is None or (scores.tokens.dtype, scores.tokens.shape) == (np.int64, (ROWS,))
    assert all(isinstance(note, str) for note in member.scorer.notes)
    assert json.loads(json.dumps(member.scorer.facts)) == member.scorer.facts


def test_a_table_without_rows_gives_scores_without_rows(member: Member) -> None:
    some, none = member.score(rows_of()), member.score(CONVERSATIONS.empty_table())
    assert fault_in(none, 0) is None
    assert outputs_of(none).dtype == outputs_of(some).dtype
    assert none.raw.keys() == some.raw.keys()
    assert (none.tokens is None) == (some.tokens is None)
    row = rows_of()["row"]
    full = score_table(row, some, swap=False)
    assert score_table(row.slice(0, 0), none, swap=False).schema == full.schema, "shards have different columns"


def test_a_row_gets_the_same_scores_wherever_it_stands(member: Member) -> None:
    rows = rows_of()
    together = outputs_of(member.score(rows))
    order = np.random.default_rng(3).permutation(ROWS)
    np.testing.assert_allclose(outputs_of(member.score(rows.take(pa.array(order)))), together[order], atol=1e-6)
    alone = [outputs_of(member.score(rows.slice(place, 1)))[0] for place in range(ROWS)]
    np.testing.assert_allclose(alone, together, atol=1e-6)


def offers_swap(member: Member) -> bool:
    try:
        return validated({**member.values, "swap": True}).swap
    except ValidationError:
        return False


def test_with_swap_exchanged_responses_get_exchanged_scores(member: Member) -> None:
    if not offers_swap(member):
        return
    rows = rows_of()
    straight, back = (
        score_table(both["row"], member.score(both), swap=True) for both in map(both_orders, (rows, exchanged(rows)))
    )
    for suffix, other in (("", ""), ("_plain", "_swapped"), ("_swapped", "_plain")):
        one, two = (np.column_stack([t[name + s] for name in CLASSES]) for t, s in ((straight, suffix), (back, other)))
        np.testing.assert_allclose(one, two[:, SWAPPED], atol=1e-6)
    assert np.abs(np.subtract(straight["a_plain"], straight["a_swapped"])).max() > 1e-4, "the sample has no position"


def test_what_changes_no_score_changes_no_digest(member: Member) -> None:
    plain = digest(member.values, member.folder)
    assert digest(dict(reversed(member.values.items())), member.folder) == plain
    assert member.digest(**member.settings.model_dump(mode="json")) == plain, "defaults that are given count"
    mutable = {name: member.sample.changes[name] for name in member.settings.mutable()}
    assert "weight" in mutable
    assert member.digest(**mutable) == plain


def test_a_run_resumes_with_other_mutable_settings_and_with_no_others(member: Member) -> None:
    before = json.loads(json.dumps(fingerprint_of(member.values, member.folder)))  # as a manifest keeps it
    mutable = {name: member.sample.changes[name] for name in member.settings.mutable()}
    for changes in ({}, mutable):
        check_same_run(before, fingerprint_of({**member.values, **changes}, member.folder), member.folder)
    for name in member.sample.changes.keys() - mutable:
        changed = fingerprint_of({**member.values, name: member.sample.changes[name]}, member.folder)
        with pytest.raises(RunError, match=r"was made with members\.member\."):
            check_same_run(before, changed, member.folder)


def test_what_changes_scores_changes_the_digest(member: Member) -> None:
    fields = type(member.settings).model_fields
    fixed = {name for name, field in fields.items() if _values(field.annotation) == 1}
    needed = fields.keys() - {"kind", *member.settings.ARTIFACTS} - fixed
    assert member.sample.changes.keys() == needed, "tests/members/samples.py has no other value of a setting"
    plain = digest(member.values, member.folder)
    changed = [name for name in needed if member.digest(**{name: member.sample.changes[name]}) != plain]
    assert sorted(changed) == sorted(needed - member.settings.mutable())


def _values(annotation: Any) -> int | None:
    return len(get_args(annotation)) if get_origin(annotation) is Literal else None


def test_artefacts_count_by_their_content(member: Member, tmp_path: Path) -> None:
    plain = digest(member.values, member.folder)
    assert member.settings.named_artifacts().keys() == set(member.settings.ARTIFACTS), "the sample names them all"
    for name, path in member.settings.named_artifacts().items():
        copy = tmp_path / name / Path(path).name
        shutil.copytree(path, copy) if Path(path).is_dir() else copy_file(path, copy)
        assert member.digest(**{name: str(copy)}) == plain
        weights = next(copy.glob(member.sample.weights)) if copy.is_dir() else copy
        weights.write_bytes(weights.read_bytes()[:-1] + b"~")
        assert member.digest(**{name: str(copy)}) != plain


def copy_file(path: str, copy: Path) -> None:
    copy.parent.mkdir()
    shutil.copy(path, copy)


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as refused:
        validate_settings(Settings, {"input": "in.csv", "output": "run", "members": {"member": values}})
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_wrong_setting_is_one_sentence(member: Member) -> None:
    unknown = refusal({**member.values, "wieght": 1})
    assert unknown == "settings: members.member.wieght = 1 is not a setting; did you mean weight?"
    for name in type(member.settings).model_fields:
        sentence = refusal({**member.values, name: {"of": "another type"}})
        assert sentence.startswith(f"settings: members.member.{name} = {{'of': 'another type'}} is not accepted; accep")
        assert "pydantic" not in sentence
    for name in member.settings.ARTIFACTS:
        if type(member.settings).model_fields[name].is_required():
            left = {key: value for key, value in member.values.items() if key != name}
            assert refusal(left).startswith(f"settings: members.member.{name} is needed; give it in")


def test_a_missing_artefact_is_one_sentence_before_anything_starts(member: Member, tmp_path: Path) -> None:
    for name in member.settings.ARTIFACTS:
        settings = validated({**member.values, name: str(tmp_path / "nowhere")})
        with pytest.raises(UsageError) as refused:
            member.kind.preflight(settings, "members.member")
        sentence = str(refused.value)
        assert sentence.startswith(
            f"settings: members.member.{name} = '{tmp_path / 'nowhere'}' does not exist; accepted"
        )
        assert "\n" not in sentence


def test_settings_survive_json(member: Member) -> None:
    settings = validated({**member.values, **member.sample.changes})
    assert validated(json.loads(settings.model_dump_json())) == settings
    assert settings.kind in names()


CLUSTERS = [Resources(1, 0), Resources(2, 0), Resources(16, 0), Resources(8, 2), Resources(8, 0, grows=True)]


@pytest.mark.parametrize("shards", [1, 100])
@pytest.mark.parametrize("cluster", [*CLUSTERS, Resources(96, 8, grows=True, starts_gpus=True)], ids=str)
def test_a_pass_finds_room(member: Member, cluster: Resources, shards: int) -> None:
    free = {name: value for name, value in member.values.items() if name not in ("device", "threads")}
    pool = member.kind.placement(validated(free), shards, cluster)
    assert member.kind.lane in LANES
    assert 1 <= pool.size <= shards
    assert pool.gpus == 0 or (member.kind.lane == "device" and cluster.gpus)
    if not cluster.grows:
        assert pool.size * pool.gpus <= cluster.gpus
        assert pool.size * pool.cpus + ENCODE_CPUS <= cluster.cpus, "no room for what reads and encodes"
    assert pool.encoders is None or pool.encoders >= 0
    assert pool.size * (pool.gpus + pool.cpus) > 0


def test_settings_of_all_kinds_are_known_without_the_libraries_of_models() -> None:
    heavy = ["lightgbm", "peft", "ray", "scipy", "sklearn", "torch", "transformers"]
    script = (
        "import sys\n"
        "from lmsys_ray.members.registry import kind_named, names\n"
        "from lmsys_ray.scoring.settings import Settings\n"
        "for name in names(): kind_named(name).settings, kind_named(name).lane\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
