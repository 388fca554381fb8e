"""A signal that stops a command is known to its threads while the main thread waits in a library."""

import signal
import subprocess
import sys

import pytest

WAITING = """
import ctypes, os, signal, sys, threading, time
from lmsys_ray import stopping
def watch():
    assert stopping.asked_to_stop() is None
    blocked.wait()
    os.kill(os.getpid(), int(sys.argv[1]))
    while not (number := stopping.asked_to_stop()):
        time.sleep(0.01)
    stopping.say_stopped(number)
stopping.stop_on_signals(["lmsys-ray", "score"])
blocked = threading.Event()
threading.Thread(target=watch).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [int(sys.argv[1])])
blocked.set()
ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_thread_ends_the_command_as_stopped(number: signal.Signals) -> None:
    """The main thread of `WAITING` sleeps in C, where the signal does not reach it."""
    command = [sys.executable, "-c", WAITING, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == "stopped; what is done is kept, resume with: lmsys-ray score\n"
