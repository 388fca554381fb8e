"""Machines as users have them, narrow or odd: a run that works, or one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCORE = [sys.executable, str(ROOT / "jobs" / "score.py"), "--set", "members.llama=null", "--limit", "4"]


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs score.py in bash; `$SCORE` in the line stands for it."""
    environment = {**os.environ, **variables, "SCORE": " ".join([*SCORE, "--output", str(folder / "run")])}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=300
    )


def check_scored(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len((folder / "run" / "submission.csv").read_text().splitlines()) == 5


@pytest.mark.slow
def test_a_low_soft_limit_on_open_files_is_raised(tmp_path: Path) -> None:
    check_scored(shell("ulimit -S -n 64; exec $SCORE", tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("limit", "code", "sentence"),
    [
        ("-n 64", 2, "error: ulimit -n: a process may open 64 files here, and Ray needs 512; raise it"),
        pytest.param(
            "-v 6000000",
            1,
            "the address space is limited to 5.7 GiB (ulimit -v), which may be too little: raise that",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "-f 2000",
            1,
            "the size of a file is limited to 2.0 MiB (ulimit -f), which may be too little: raise that",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_limits_that_ray_cannot_start_under_are_named(tmp_path: Path, limit: str, code: int, sentence: str) -> None:
    done = shell(f"ulimit {limit}; exec $SCORE", tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sentence in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [{"HOME": "/proc/nowhere"}, {"LC_ALL": "xx_YY"}, {"TMPDIR": "/proc"}, {"HOME": "", "LANG": "tlh"}]
)
def test_homes_locales_and_folders_that_are_not_there(tmp_path: Path, variables: dict[str, str]) -> None:
    check_scored(shell("exec $SCORE", tmp_path, **variables), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        "mount -t tmpfs -o size=64m tmpfs /dev/shm",
        "hostname nowhere.invalid",
        "mount -t tmpfs -o size=1m tmpfs /mnt && export TMPDIR=/mnt",
    ],
)
def test_containers_with_little_memory_or_without_a_name(tmp_path: Path, before: str) -> None:
    namespaces = ["unshare", "--mount", "--uts", "bash", "-c"]
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces")
    check_scored(shell(f"{' '.join(namespaces)} '{before} && exec $SCORE'", tmp_path), tmp_path)


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_a_python_without_the_package_is_told_what_to_do(tmp_path: Path, job: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "jobs" / job)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: lmsys_ray is not installed for {sys.executable}; call the Python that README.md sets up\n"
    )
