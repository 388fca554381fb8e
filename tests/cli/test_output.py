"""What a command says survives narrow encodings, full devices and closed terminals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import logging, sys, threading, time
from lmsys_ray.cli.command import run_command
from lmsys_ray.scoring.progress import Display
def command():
    with Display() as display:
        logging.getLogger("ray").addHandler(logging.StreamHandler(open("/dev/full", "w")))
        logging.getLogger("ray").error("lost")
        display.say("a bar \\u2026 of \\u2503 signs")
        thread = threading.Thread(target=display.say, args=["from a thread"])
        thread.start()
        thread.join()
        {body}
sys.exit(run_command(command))
"""


def start(body: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT.format(body=body)], stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_every_encoding_can_say_it(variables: dict[str, str]) -> None:
    process = start("pass", stdout=subprocess.PIPE, env={**os.environ, **variables})
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert b"a bar " in said
    assert b" signs\nfrom a thread\n" in said


@pytest.mark.parametrize("body", ["pass", "print('x' * 100_000)"])
def test_a_full_device_is_one_sentence(body: str) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(body, stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.decode() == (
        "error: standard output cannot be written (No space left on device); mend that and start the same command "
        "again\n"
    )


@pytest.mark.parametrize(("hup", "code"), [(signal.SIG_DFL, 129), (signal.SIG_IGN, 0)])
def test_a_lost_terminal_stops_a_command_unless_it_runs_under_nohup(hup: signal.Handlers, code: int) -> None:
    process = start("time.sleep(2)", stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, hup))
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert (b"stopped; what is done is kept" in errors) == (code == 129)
