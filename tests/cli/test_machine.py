"""Machines as users have them, narrow or odd: a run that works, or one sentence."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lmsys_ray.cluster import process_limits

ROOT = Path(__file__).parents[2]
as_another_user = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
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
    ("limit", "sentence"),
    [
        ("-n 64", "ulimit -n: a process may open 64 files here, and Ray needs 256"),
        ("-v 2000000", r"ulimit -v: the address space is limited to 1.9 GiB here, and Ray needs [\d.]+ GiB"),
        ("-f 2000", r"ulimit -f: the size of a file is limited to 2.0 MiB here, and Ray needs [\d.]+ GiB"),
    ],
)
def test_limits_that_ray_cannot_start_under_are_named(tmp_path: Path, limit: str, sentence: str) -> None:
    done = shell(f"ulimit {limit}; exec $SCORE", tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(rf"error: {sentence}; raise it, then start the same command again\n", done.stderr), done.stderr


def test_a_limit_that_may_be_why_is_named_where_ray_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = dict.fromkeys((resource.RLIMIT_AS, resource.RLIMIT_FSIZE), resource.RLIM_INFINITY)
    limits |= {resource.RLIMIT_NPROC: 500}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    named = "processes and threads is limited to 500 (ulimit -u), which may be too little: raise that"
    assert process_limits.hint() == f"; {named}"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert process_limits.hint() == ""


@as_another_user
def test_too_few_processes_for_another_user_are_named(tmp_path: Path) -> None:
    """Root is not bound by this limit."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))"
    check = "from lmsys_ray.cluster.process_limits import check_limits; from os import setuid; setuid(65534)"
    code = f"{check}; {limit}; check_limits()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "UsageError: ulimit -u: processes and threads is limited to 100 here, and Ray needs 400" in done.stderr


@as_another_user
def test_a_user_who_may_not_run_the_interpreter_reads_a_sentence(tmp_path: Path) -> None:
    hidden = tmp_path / "python"
    hidden.mkdir(mode=0o700)
    start = "from lmsys_ray.cluster.reaper import Reaper; import os, pathlib, sys; os.setuid(65534)"
    code = f"{start}; sys.executable = {str(hidden / 'python')!r}; Reaper(pathlib.Path('/tmp'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert f"RunError: {hidden / 'python'} cannot be started as a process of its own (Permission denied)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": "/proc/nowhere", "LC_ALL": "xx_YY", "TMPDIR": "/proc"},
        *(pytest.param(each, marks=pytest.mark.soak) for each in ({"TMPDIR": "/proc"}, {"HOME": "", "LANG": "tlh"})),
    ],
)
def test_homes_locales_and_folders_that_are_not_there(tmp_path: Path, variables: dict[str, str]) -> None:
    check_scored(shell("exec $SCORE", tmp_path, **variables), tmp_path)


WITHOUT_OPENMP = 'for each in $(ldconfig -p | grep -o "/.*libgomp.so.1$"); do mount --bind /dev/null $each; done'


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(f"mount -t tmpfs -o size=64m tmpfs /dev/shm && {WITHOUT_OPENMP}", id="as of Debian's images"),
        "mount -t tmpfs -o ro tmpfs /dev/shm",
        *(
            pytest.param(each, marks=pytest.mark.soak)
            for each in (
                "hostname nowhere.invalid",
                "mount -t tmpfs -o size=1m tmpfs /mnt && export TMPDIR=/mnt",
                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
            )
        ),
    ],
)
def test_containers_with_little_memory_no_name_and_no_network(tmp_path: Path, before: str) -> None:
    namespaces = ["unshare", "--mount", "--uts", "--net", "bash", "-c"]
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces")
    check_scored(shell(f"{' '.join(namespaces)} 'ip link set lo up && {before} && exec $SCORE'", tmp_path), tmp_path)


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_a_python_without_the_package_is_told_what_to_do(tmp_path: Path, job: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", str(ROOT / "jobs" / job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: lmsys_ray is not installed for {sys.executable}; call the Python that README.md sets up\n"
    )
