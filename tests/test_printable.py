"""What others wrote gives a terminal no commands."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmsys_ray.printable import printable
from lmsys_ray.processes import Process
from lmsys_ray.run_directory.lock import Holder
from lmsys_ray.scoring.progress import Display
from tests.fault_tolerance.jobs import ROOT

CLEAR = "\x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CLEAR, "\\x1b[2J\\x1b]0;owned\\x07"),
        ("a\rb\x08\x7f\x9b31m", "a\\rb\\x08\\x7f\\x9b31m"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("name-\udcff.csv", "name-\\udcff.csv"),
        ("ünïcödé 漢字 🎉\tx\ny", "ünïcödé 漢字 🎉\tx\ny"),
    ],
)
def test_commands_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_a_display_prints_no_commands(capsys: pytest.CaptureFixture) -> None:
    with Display() as display:
        display.say(f"shard {CLEAR}")
    assert "\x1b" not in capsys.readouterr().out


def test_an_error_that_quotes_a_lock_prints_no_commands(tmp_path: Path) -> None:
    """A lock of another host that still beats is quoted."""
    script = (
        "import sys, time\n"
        "from lmsys_ray.cli.command import run_command\n"
        "from lmsys_ray.run_directory.lock import RunLock\n"
        "from lmsys_ray.run_directory.layout import RunDirectory\n"
        "sys.exit(run_command(lambda: RunLock(RunDirectory(sys.argv[1])).__enter__() and 0))\n"
    )
    held = Holder(Process(CLEAR, "n", 1, "2"), since=CLEAR, token="t", beat=time.time())
    (tmp_path / "lock.json").write_text(held.text())
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "is at work for process 1 on \\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr
