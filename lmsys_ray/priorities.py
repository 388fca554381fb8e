"""Lets processes that mostly wait stand back for one that computes on all cores of a machine alone.

Each Python process of Ray wakes a hundred times a second to look for signals, and Ray Data keeps three beside its two
loops in the driver. By default Ray gives its workers niceness 15, so that each of these takes a core from a scorer at
once, with a part of what its caches held. Under the policy SCHED_IDLE of Linux (see sched(7)) they wait until a core is
free or their turn has come, some milliseconds later, and find more to do then.

Speed of a Llama replica on two cores of an AMD EPYC (Zen 4), the policies of the other processes changed every 6 s, 25
rounds in random order, relative to the mean (standard error 0.006 to 0.011), and the cores of these two that it got:

    as Ray has it                                                   0.973    1.865
    the scorer with niceness 0, helpers and driver SCHED_IDLE       1.007    1.924    kept
    the same, and Ray's daemons (raylet, gcs, agents)               1.020    1.932    a busy machine may starve them

Of little effect: SCHED_IDLE beside niceness 15, SCHED_BATCH, niceness 19, all helpers bound to one core, and timers
with a slack of 0.1 s (1.00 to 1.01 of the speed, in shorter series).
"""

import os
from contextlib import suppress
from typing import Any

import ray
from ray.util import list_named_actors


def helpers_stand_back(ledger: Any) -> None:
    """Gives the driver's threads but its main one, Ray Data's helpers and the actor `ledger` the policy SCHED_IDLE.

    Without privileges nothing brings them back. Threads that the main one starts later are not concerned.
    """
    stand_back(but=os.getpid())
    # Those that have names on a cluster of this driver's own are Ray Data's.
    named = [ray.get_actor(**actor) for actor in list_named_actors(all_namespaces=True)]
    for actor in [*named, ledger]:  # Nobody waits for them: the pass goes on whatever becomes of it.
        actor.__ray_call__.remote(lambda _: stand_back())


def stand_back(but: int | None = None) -> None:
    """Gives all threads of this process, except for the one with the id `but`, the policy SCHED_IDLE."""
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != but:
            # It may have ended just now, and a sandbox may know no policies: the scores are the same without.
            with suppress(OSError):
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
