"""`jobs/score.py` as a user runs it: one line and an exit code for a mistake, and a stop that keeps what is done."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = 160
COMMAND = [sys.executable, str(ROOT / "jobs" / "score.py")]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture
def csv_file(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("id,prompt,response_a,response_b\n" + "".join(f"{n},p,a,b\n" for n in range(ROWS)))
    return "in.csv"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "shard_rows=0"], "error: settings: shard_rows = 0 is not accepted; accepted: greater than 0"),
        (["--set", "members.llama.model=/no/such/model"], "members.llama.model = '/no/such/model' does not exist"),
        (["--set", "members.lightgbm.artifacts=nowhere"], "members.lightgbm.artifacts = 'nowhere' does not exist"),
        (["--set", "members.lightgbm.artifacts=packaged:no"], "'packaged:no' is not packaged; the packaged names are"),
        (["--input", "missing.csv"], "error: input: missing.csv does not exist"),
        (["--input", "wrong.csv"], "error: input: wrong.csv is of no known schema; it has id, prompt, response_a (nea"),
        (["--output", "in.csv"], "in.csv is a file; name a directory"),
    ],
)
def test_mistake_is_one_line_and_starts_nothing(
    tmp_path: Path, csv_file: str, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "wrong.csv").write_text("id,prompt,response_a\n1,a,b\n")
    files = [] if "--input" in arguments else ["--input", csv_file]
    done = run(*files, *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_help_names_every_flag(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    for flag in ("--config", "--preset", "--input", "--output", "--limit", "--set", "--strict"):
        assert flag in done.stdout
    for code in ("0 done", "1 failed", "2 wrong usage", "3 done, but with rejects", "130 stopped", "143 stopped"):
        assert code in " ".join(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_stop_keeps_what_is_done_and_the_same_command_goes_on(
    tmp_path: Path, csv_file: str, sent: signal.Signals, code: int
) -> None:
    member = "members: {lightgbm: {kind: lightgbm, artifacts: packaged:lightgbm}}\nshard_rows: 1\n"
    (tmp_path / "run.yaml").write_text(member)
    arguments = ["--config", "run.yaml", "--input", csv_file]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    scores = tmp_path / "runs" / "in" / "scores" / "lightgbm"
    deadline = time.monotonic() + 120
    while process.poll() is None and not any(scores.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said == f"stopped; what is done is kept, resume with: {shlex.join([*COMMAND, *arguments])}\n"
    done = len(list(scores.glob("*.parquet")))
    assert 0 < done < ROWS

    again = run(*arguments, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    scored = re.search(r"lightgbm: (\d+) rows", again.stdout)
    assert scored is not None, again.stdout
    assert 0 < int(scored[1]) <= ROWS - done, "an actor may have finished its shard after the stop"
    lines = (tmp_path / "runs" / "in" / "submission.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(n) for n in range(ROWS)]
