"""Lowers the priority of Ray's helper processes beside a replica that computes on all cores of a machine.

They wake often and would take cores from the replica. Measurements: docs/lab/priorities.md
"""

import os
from contextlib import suppress
from typing import Any

import ray
from ray.util import list_named_actors

from lmsys_ray.cluster.actor_calls import run_in_actor


def lower_helpers_priority(ledger: Any) -> None:
    """Gives SCHED_IDLE (sched(7)) to the driver's threads except the main one, Ray Data's helpers and the ledger.

    Without privileges this cannot be undone. Threads that the main thread starts later keep its policy.
    """
    lower_priority(but=os.getpid())
    # On a cluster of this driver's own, all actors with names are Ray Data's.
    named = [ray.get_actor(**actor) for actor in list_named_actors(all_namespaces=True)]
    for actor in [*named, ledger]:
        run_in_actor(actor, lower_priority)  # The result does not matter: scores are the same without it.


def lower_priority(but: int | None = None) -> None:
    """Gives the policy SCHED_IDLE to all threads of this process, except the thread with the id `but`."""
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != but:
            # The thread may have ended, and a sandbox may refuse policies; scores are the same without.
            with suppress(OSError):
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
