"""A head started by the lines of docs/cluster.md, in a home of its own and on ports of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(happened: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, told()
        time.sleep(0.5)


def documented_lines() -> list[str]:
    """Returns the lines that docs/cluster.md gives for a cluster of one machine, without their comments."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    block = re.search(r"A cluster of one machine is started like this:\n\n```sh\n(.*?)```", text, re.DOTALL)
    assert block
    return [re.sub(r"\s+#.*", "", line) for line in block[1].splitlines()]


def checkout(folder: Path) -> Path:
    """Copies what a clone holds, with a virtual environment that leads to the one of these tests."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, names.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f"export PATH={BIN}:$PATH\n")
    return folder


@dataclass
class Head:
    """A head node and those who submit jobs to it."""

    home: Path
    checkout: Path
    environment: dict[str, str] = field(init=False)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        dashboard = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        self.environment = {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "LMSYS_RAY_CACHE": str(_cache()),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "NO_COLOR": "1",
        }
        # A Ray that these tests hold already has the usual ports, and a head without an agent takes no job.
        ports = f"--port={self.port} --dashboard-port={dashboard} --dashboard-agent-listen-port={free_port()}"
        self._with_ports = f"ray start --head {ports} --num-cpus=2 --num-gpus=0"

    def run_documented(self) -> subprocess.CompletedProcess[str]:
        """Runs the documented lines, on other ports, and returns what they said."""
        lines = documented_lines()
        assert "ray start --head" in lines
        return self.shell(*(self._with_ports if line == "ray start --head" else line for line in lines))

    def shell(self, *lines: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join(["set -e", *lines])
        return subprocess.run(
            ["bash", "-c", script],
            env=self.environment,
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )

    def job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `ray job` as who knows the token."""
        environment = self.environment | {"RAY_AUTH_MODE": "token"}
        command = [str(BIN / "ray"), "job", *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.checkout, capture_output=True, text=True, check=False, timeout=600
        )

    def stop(self) -> None:
        """Ends every process that lives in this home."""
        mark = f"HOME={self.home}".encode()
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        os.kill(int(process.name), signal.SIGKILL)


def _cache() -> Path:
    """The cache of the user who runs the tests, where the packaged model was converted once."""
    from lmsys_ray.storage.cache import cache_directory

    return cache_directory()
