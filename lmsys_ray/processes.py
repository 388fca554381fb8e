"""Identifies processes on this and other machines, and tells whether they are still alive."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path


def machine_memory() -> int:
    """Returns the memory of this machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One process, distinct from a later one with the same number."""

    host: str
    namespace: str
    """The PID namespace that `pid` belongs to; each container on a host has its own."""
    pid: int
    started: str
    """When it started, in clock ticks as the kernel counts them."""

    @classmethod
    def current(cls) -> "Process":
        """Returns this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _namespace(), pid, _started(pid) or "")

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Returns the process with a number on this machine; None where none runs."""
        started = _started(pid)
        return None if started is None else cls(socket.gethostname(), _namespace(), pid, started)

    def is_local(self) -> bool:
        """Returns whether it is on this machine and in this PID namespace."""
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def is_alive(self) -> bool:
        """Returns whether it is running; only for one that `is_local`."""
        return _started(self.pid) == self.started

    def kill(self) -> bool:
        """Ends it with SIGKILL if it is local and alive; returns whether it did."""
        if not (self.is_local() and self.is_alive()):
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
    """Returns when a process started; None if there is none, or if it has ended and waits to be reaped."""
    try:
        # The name, in brackets, may hold anything; the state is the first field after it, the start the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
