"""What `evaluate` tells a user to type next is called as `evaluate` itself was."""

from pathlib import Path

import pytest

from lmsys_ray.cli import evaluate
from tests.evaluation.runs import blurred, drawn, make_run, write_labels


@pytest.mark.parametrize(("prog", "score"), [("evaluate.py", "score.py"), ("lmsys-ray evaluate", "lmsys-ray score")])
def test_the_next_command_is_named_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prog: str, score: str
) -> None:
    truth, labels = drawn(200)
    members = {"good": blurred(truth, 0.1, 1), "poor": blurred(truth, 0.9, 2)}
    run, _ = make_run(tmp_path, [f"question {n}" for n in range(200)], members, {"good": 0.5, "poor": 0.5})
    write_labels(tmp_path / "labels.csv", labels)
    evaluate.main(["--run", str(run.path), "--labels", str(tmp_path / "labels.csv")], prog)
    settings = run.path / "evaluation" / "blend.yaml"
    told = f"to blend the run with the fitted weights and temperature: {score} --config {settings}\n"
    assert told in capsys.readouterr().out
