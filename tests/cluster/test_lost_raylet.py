"""The raylet of a cluster that a command has joined is killed: a sentence, and nothing of Ray's own text."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.heads import Head, checkout, free_port

DRIVER = """
import sys, time
from lmsys_ray.cli.command import run_command
from lmsys_ray.cluster.connect import ray_cluster
def command():
    with ray_cluster(allow_unauthenticated=True):
        print("joined", flush=True)
        sys.stdin.readline()
sys.exit(run_command(command))
"""


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    (folder / "home").mkdir()
    made = Head(folder / "home", checkout(folder / "clone"))
    made.environment |= {"RAY_AUTH_MODE": "disabled"}
    agent = f"--dashboard-agent-listen-port={free_port()}"
    started = made.shell(f"ray start --head --port={made.port} --include-dashboard=false {agent} --num-cpus=2")
    assert started.returncode == 0, started.stdout
    yield made
    made.stop()


def joining(head: Head) -> dict[str, str]:
    """Returns the environment of a command that joins the cluster of `head`."""
    return {**os.environ, **head.environment, "RAY_ADDRESS": f"127.0.0.1:{head.port}"}


def raylets(head: Head) -> list[int]:
    mark, found = f"HOME={head.home}".encode(), []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                found += [int(process.name)] if (process / "comm").read_text() == "raylet\n" else []
    return found


@pytest.mark.slow
def test_a_joined_raylet_that_dies_ends_the_command_with_a_sentence(head: Head) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=joining(head),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "joined\n"
    (victim,) = raylets(head)
    os.kill(victim, signal.SIGKILL)
    driver.wait(60)  # its standard input stays open
    _, errors = driver.communicate()
    assert driver.returncode == 1
    assert re.fullmatch(
        rf"error: Ray's raylet on this machine \(process {victim}\) ended, .* resumes from .*\n", errors
    )


@pytest.mark.slow
def test_a_command_that_leaves_a_cluster_is_not_ended_by_it_afterwards(head: Head) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env=joining(head),
        input="\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (driver.returncode, driver.stderr) == (0, "")
