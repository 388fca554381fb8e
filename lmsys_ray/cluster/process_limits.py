"""The limits that a shell sets for its processes (`ulimit`), where Ray needs more than they allow."""

import os
import resource

from lmsys_ray.errors import UsageError

_FILES_WANTED, _FILES_NEEDED = 65_536, 512
"""Open files: each process of Ray holds a socket for every other one."""

_GENEROUS = {
    resource.RLIMIT_AS: (1 << 40, "the address space", "v"),
    resource.RLIMIT_FSIZE: (1 << 36, "the size of a file", "f"),
    resource.RLIMIT_NPROC: (4096, "processes and threads", "u"),
}
"""For each limit the value from which it hinders nobody, its name, and the flag of `ulimit`."""


def allow_open_files() -> None:
    """Raises the limit on open files of this process and those that it starts, as far as it may.

    Raises `UsageError` where that is too little for Ray.
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


def hint() -> str:
    """Returns which limits may be why Ray does not start, as a part of a sentence; empty where there are none."""
    found = []
    for kind, (generous, name, flag) in _GENEROUS.items():
        limit = resource.getrlimit(kind)[0]
        exempt = kind == resource.RLIMIT_NPROC and os.geteuid() == 0
        if limit != resource.RLIM_INFINITY and limit < generous and not exempt:
            found.append(f"{name} is limited to {_amount(kind, limit)} (ulimit -{flag})")
    return f"; {' and '.join(found)}, which may be too little: raise that" if found else ""


def _amount(kind: int, limit: int) -> str:
    if kind == resource.RLIMIT_NPROC:
        return f"{limit:,}"
    return f"{limit / (1 << 30):,.1f} GiB" if limit >= 1 << 30 else f"{limit / (1 << 20):,.1f} MiB"
