"""What training notes of how it computed, and that scoring computes so too."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from lmsys_ray.checkpoints.loading import load_model
from lmsys_ray.checkpoints.sources import trained_dtype
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.engine.devices import choose_dtype, computes_in, other_dtype
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ENCODED, ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.training.building import compute_type
from lmsys_ray.members.classifier.training.loop import TrainingLoop
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.classifier.training.output import finish
from tests.members.classifier.training.test_loop import CPU, conversations, ignore, make_loop, settings
from tests.members.classifier.training.test_models import make_deberta

PAD = 1


def trained(chosen: TrainingSettings, directory: Path) -> TrainingLoop:
    loop = make_loop(chosen, directory)
    loop.run(ignore)
    loop.finish()
    return loop


def scoring_of(loop: TrainingLoop, chosen: TrainingSettings) -> dict[str, object]:
    """Returns scoring.json, completed as the command does."""
    table, labels = conversations(24)
    rows = LabelledRows([str(n) for n in range(24)], table, labels, np.arange(24), 0)
    finish(chosen, loop.files, rows, np.arange(24), np.empty(0, np.int64))
    return json.loads((loop.files.result / "scoring.json").read_text())


@pytest.mark.parametrize("change", [{}, {"top_layers": 1, "keep_frozen": True}])
def test_rows_that_end_in_the_pad_token_are_pooled_there_by_training_and_scoring(
    base: Path,
    tmp_path: Path,
    change: dict[str, object],
) -> None:
    chosen = settings(base, epochs=1, **change)
    loop = trained(chosen, tmp_path)
    random = np.random.default_rng(0)
    rows = [[0, *random.integers(3, 400, length).tolist(), *[PAD] * pads] for length, pads in ((5, 1), (9, 3), (4, 0))]
    rows.append([*rows[0], 7])
    given = loop.classifier.collate([np.array(row, np.int32) for row in rows], [("new", n) for n in range(4)], CPU)
    loop.classifier.eval()
    with torch.no_grad():
        seen = torch.softmax(loop.classifier(*given), dim=-1).numpy()
    assert np.abs(seen[0] - seen[3]).max() > 1e-4
    assert scoring_of(loop, chosen)["pooling"] == "last_token"
    member = chosen.scoring().model_copy(update={"adapter": str(loop.files.result)})
    values = {"row": range(4), "input_ids": rows, "tokens": [len(row) for row in rows]}
    for padding in ("none", "longest"):
        scorer = ClassifierScorer(member.model_copy(update={"padding": padding}), threads=1)
        np.testing.assert_allclose(scorer.score(pa.table(values, schema=ENCODED)).probabilities, seen, atol=1e-5)
    model = load_model(member, Wanted.three_labels()).model
    for row, expected in zip(rows, seen, strict=True):
        with torch.no_grad():
            last = model.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
            np.testing.assert_allclose(torch.softmax(model.score(last), dim=-1).numpy(), expected, atol=1e-5)


def test_an_adapter_notes_its_type_and_its_pooling_and_scoring_repeats_the_training(
    base: Path,
    tmp_path: Path,
) -> None:
    chosen = settings(base, dtype="auto", epochs=1)
    loop = trained(chosen, tmp_path)
    noted = scoring_of(loop, chosen)
    assert noted["dtype"] == str(compute_type("auto", CPU)).removeprefix("torch.")
    assert noted["pooling"] == "last_token"
    assert {key: noted[key] for key in ("text", "template", "max_length")} == {
        "text": "json",
        "template": "labelled",
        "max_length": 128,
    }
    member = chosen.scoring().model_copy(update={"adapter": str(loop.files.result)})
    assert load_model(member, Wanted.three_labels()).model.dtype == compute_type("auto", CPU)
    scored = (
        ClassifierScorer(member, threads=1).score(ClassifierEncoder(member).encode(conversations(24)[0])).probabilities
    )
    tolerance = 1e-5 if noted["dtype"] == "float32" else 5e-3
    np.testing.assert_allclose(scored, loop.files.load_probabilities(24), atol=tolerance)


def test_another_architecture_notes_no_pooling(tmp_path: Path) -> None:
    chosen = settings(make_deberta(tmp_path / "base"), epochs=0.5)
    assert "pooling" not in scoring_of(trained(chosen, tmp_path / "run"), chosen)


@pytest.mark.parametrize(
    ("abilities", "noted", "expected"),
    [
        ({"avx512_bf16": True}, "bfloat16", torch.bfloat16),
        ({"avx2": True}, "bfloat16", torch.float32),
        ({"avx512_bf16": True}, "float16", torch.float32),
        ({"avx512_bf16": True}, "float32", torch.float32),
        ({"avx512_bf16": True}, None, torch.float32),
    ],
)
def test_auto_follows_the_training_where_the_processor_computes_so(
    abilities: dict[str, bool], noted: str | None, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_dtype("auto", noted) == expected
    assert choose_dtype("float16", noted) == torch.float16


@pytest.mark.parametrize(
    ("capability", "noted", "expected"),
    [
        ((9, 0), None, torch.bfloat16),
        ((9, 0), "float16", torch.float16),
        ((9, 0), "float32", torch.float32),
        ((7, 5), "bfloat16", torch.float16),
        ((7, 5), None, torch.float16),
    ],
)
def test_auto_follows_the_training_where_the_gpu_computes_so(
    capability: tuple[int, int], noted: str | None, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert choose_dtype("auto", noted) == expected
    assert computes_in("bfloat16") == (capability >= (8, 0))
    assert compute_type("auto", torch.device("cuda")) == choose_dtype("auto", "bfloat16")


def test_a_member_of_another_type_than_its_training_says_so_once(
    base: Path,
    tmp_path: Path,
) -> None:
    loop = trained(settings(base, epochs=0.5), tmp_path)
    (loop.files.result / "scoring.json").write_text('{"dtype": "bfloat16"}')
    member = settings(base).scoring().model_copy(update={"adapter": str(loop.files.result)})
    (note,) = ClassifierScorer(member.model_copy(update={"dtype": "float32"})).notes
    assert "was trained in bfloat16, scored in float32" in note
    assert ClassifierScorer(member.model_copy(update={"dtype": "bfloat16"})).notes == []
    assert other_dtype(torch.float32, None) is None
    (loop.files.result / "scoring.json").write_text('{"dtype": "float8"}')
    with pytest.raises(UsageError, match=r"scoring\.json of .* has dtype = 'float8'; restore it"):
        trained_dtype(member)
