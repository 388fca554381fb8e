"""A machine so busy that Ray's agent comes too late for its raylet: Ray is started once more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import os, sys, time
flag = os.environ["SLOW_FLAG"]
if any(part.endswith("dashboard/agent.py") for part in getattr(sys, "orig_argv", [])):
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        pass
    else:
        time.sleep(25)
"""

DRIVER = """
import sys
from lmsys_ray.cli.command import run_command
from lmsys_ray.cluster.local_ray import local_ray
def command():
    with local_ray():
        import ray
        print(ray.get(ray.remote(lambda: 7).remote()))
sys.exit(run_command(command))
"""


@pytest.mark.slow
def test_an_agent_that_comes_too_late_is_waited_for_once_more(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    root = Path(__file__).parents[2]
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "SLOW_FLAG": str(tmp_path / "flag")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (tmp_path / "flag").exists(), "nothing was slow"
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
