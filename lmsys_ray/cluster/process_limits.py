"""The limits that a shell sets for its processes (`ulimit`), where Ray needs more than they allow."""

import os
import resource

from lmsys_ray.errors import UsageError
from lmsys_ray.processes import machine_memory

_FILES_WANTED, _FILES_NEEDED = 65_536, 256
"""Open files: each process of Ray holds a socket for every other one."""

_OTHERS = {
    resource.RLIMIT_AS: (machine_memory() * 5 // 4, 1 << 40, "the address space", "v"),
    resource.RLIMIT_FSIZE: (machine_memory() // 3, 1 << 36, "the size of a file", "f"),
    resource.RLIMIT_NPROC: (400, 4096, "processes and threads", "u"),
}
"""For each limit what Ray was seen to need, the value from which it hinders nobody, its name, and the flag of `ulimit`.

Ray maps its object store, a file of 30 % of the machine's memory, into each process. Measurements:
docs/lab/local_ray.md
"""


def check_limits() -> None:
    """Raises the limit on open files of this process and those that it starts, as far as it may.

    Raises `UsageError` where that, or another limit, is too little for Ray.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < _FILES_NEEDED:
        raise UsageError(
            f"ulimit -n: a process may open {soft} files here, and Ray needs {_FILES_NEEDED}; raise it, then start "
            "the same command again"
        )
    for kind, (needed, _, name, flag) in _OTHERS.items():
        if (limit := _limit(kind)) is not None and limit < needed:
            raise UsageError(
                f"ulimit -{flag}: {name} is limited to {_amount(kind, limit)} here, and Ray needs "
                f"{_amount(kind, needed)}; raise it, then start the same command again"
            )


def hint() -> str:
    """Returns which limits may be why Ray does not start, as a part of a sentence; empty where there are none."""
    found = []
    for kind, (_, generous, name, flag) in _OTHERS.items():
        if (limit := _limit(kind)) is not None and limit < generous:
            found.append(f"{name} is limited to {_amount(kind, limit)} (ulimit -{flag})")
    return f"; {' and '.join(found)}, which may be too little: raise that" if found else ""


def _limit(kind: int) -> int | None:
    """Returns a limit of this process; None where nothing limits it."""
    limit = resource.getrlimit(kind)[0]
    exempt = kind == resource.RLIMIT_NPROC and os.geteuid() == 0
    return None if exempt or limit == resource.RLIM_INFINITY else limit


def _amount(kind: int, limit: int) -> str:
    if kind == resource.RLIMIT_NPROC:
        return f"{limit:,}"
    return f"{limit / (1 << 30):,.1f} GiB" if limit >= 1 << 30 else f"{limit / (1 << 20):,.1f} MiB"
