"""Processes of this and of other machines: which one is meant, and whether it still lives."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one that is given the same number."""

    host: str
    namespace: str
    """The numbering that `pid` belongs to: containers on one host have each their own."""
    pid: int
    started: str
    """When it started, in the kernel's own count."""

    @classmethod
    def current(cls) -> "Process":
        pid = os.getpid()
        return cls(socket.gethostname(), _namespace(), pid, _started(pid) or "")

    def is_near(self) -> bool:
        """Returns whether it can be seen from here."""
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def lives(self) -> bool:
        """Returns whether it runs, where it `is_near`."""
        return _started(self.pid) == self.started

    def kill(self) -> bool:
        """Ends it with SIGKILL where it is near and lives; returns whether it did."""
        if not (self.is_near() and self.lives()):
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _started(pid: int) -> str | None:
    """Returns when a process started, None where there is none, or one that has ended and waits to be reaped."""
    try:
        # The name, in brackets, may hold anything; the state is the first field behind it, the start the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
