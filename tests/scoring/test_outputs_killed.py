"""A start that is killed while its outputs replace those of an earlier one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.scoring.test_outputs import make_run

OUTPUTS = ("submission.csv", "scores.parquet", "preferences.jsonl", "doubtful.jsonl", "leaderboard.csv")

STARTS = """
import json, os, shutil, signal, sys
from pathlib import Path
from lmsys_ray.scoring import job
from tests.scoring.test_outputs import RunDirectory, no_ray, scored

job.ray_cluster = no_ray
folder = Path(sys.argv[1])
earlier, later = (json.loads(text) for text in sys.argv[2:])
watched = {"submission.csv", "scores.parquet", "preferences.jsonl", "doubtful.jsonl"}
watched |= {"leaderboard.csv", "leaderboard.json"}


def start(name, asked, steps):
    '''Does a start in a process of its own that dies before the step of this number; returns whether it did.'''
    child = os.fork()
    if not child:
        left = [steps]

        def counted(function):
            def step(*paths, **options):
                if Path(paths[-1]).name in watched:
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                return function(*paths, **options)

            return step

        os.replace, Path.unlink = counted(os.replace), counted(Path.unlink)
        scored(RunDirectory(folder / name), **asked)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


start("run", earlier, -1)
shutil.copytree(folder / "run", folder / "earlier")
steps = 0
while True:
    shutil.rmtree(folder / "run")
    shutil.copytree(folder / "earlier", folder / "run")
    if not start("run", later, steps):
        break
    shutil.copytree(folder / "run", folder / f"killed {steps}")
    start("run", later, -1)
    shutil.copytree(folder / "run", folder / f"mended {steps}")
    steps += 1
"""
EARLIER = {"preferences": {"format": "trl", "margin": 0, "most_tie": 1}, "doubtful_texts": True}
LATER = {"doubtful": 3, "escape_formulas": True, "leaderboard": {"write": True, "anchor": "kite"}}


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in (*OUTPUTS, "leaderboard.json") if (run / name).exists()}


def test_a_kill_at_any_step_leaves_one_set_or_no_submission(tmp_path: Path) -> None:
    make_run(tmp_path)
    for earlier, later in ((EARLIER, LATER), (LATER, {**EARLIER, "leaderboard": {"write": False}})):
        for folder in tmp_path.glob("* *"):
            shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "earlier", ignore_errors=True)
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", STARTS, str(tmp_path), json.dumps(earlier), json.dumps(later)]
        subprocess.run(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
        before, after = contents(tmp_path / "earlier"), contents(tmp_path / "run")
        killed = sorted(tmp_path.glob("killed *"))
        assert len(killed) > 6
        for folder in killed:
            there = contents(folder)
            assert there == before or "submission.csv" not in there
            assert all(data in (before.get(name), after.get(name)) for name, data in there.items())
            assert contents(tmp_path / folder.name.replace("killed", "mended")) == after
        assert any("submission.csv" not in contents(folder) for folder in killed)
