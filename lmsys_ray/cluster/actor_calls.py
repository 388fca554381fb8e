"""Runs functions inside actors; the only use of Ray's private method `__ray_call__`."""

from collections.abc import Callable
from typing import Any


def run_in_actor(actor: Any, function: Callable[[], None]) -> bool:
    """Has an actor's process call `function`, without waiting for it; returns whether this Ray can do that."""
    call = getattr(actor, "__ray_call__", None)
    if call is None:
        return False
    call.remote(lambda _: function())
    return True
