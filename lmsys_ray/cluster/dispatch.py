"""Streams items over the cluster: CPU tasks encode them, and a pool of actors scores them."""

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, cast

import pyarrow as pa
import ray.data
from ray.exceptions import RayError, RayTaskError

from lmsys_ray.cluster.excluded_nodes import avoiding
from lmsys_ray.cluster.pool import ENCODE_CPUS, Pool
from lmsys_ray.errors import RunError

_MOST_BLOCKS = 2000
"""The most blocks of Ray Data that items are divided into."""


def dispatch(
    items: Sequence[dict[str, Any]],
    encode: Callable[[pa.Table], pa.Table],
    scorer: type,
    arguments: dict[str, Any],
    pool: Pool,
) -> Iterator[dict[str, Any]]:
    """Yields the results for `items`, in any order; each is encoded by a CPU task, then scored by an actor.

    The actors are `scorer(**arguments)`; in a pool without encoders they receive the items themselves. An actor may be
    called for its next item during the current one (`Pool.in_flight`), in another thread, and must take turns itself.
    Actors without room start when nodes join, and each ends when no item is left for it. Raises what a worker raised,
    if that is a `RunError`, else `RunError` when Ray gives up. Measurements: docs/lab/pools.md
    """
    one_item: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    dataset: ray.data.Dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), _MOST_BLOCKS))
    dataset.context.target_max_block_size = 1  # Encoded items leave one by one, however many share a task.
    if pool.encoders != 0:
        tasks = ray.data.TaskPoolStrategy(size=pool.encoders)
        dataset = dataset.map_batches(
            encode, num_cpus=ENCODE_CPUS, compute=tasks, **one_item, **avoiding(pool.excluded)
        )
    in_flight = pool.in_flight(len(items))
    actors = ray.data.ActorPoolStrategy(
        size=pool.size,
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=in_flight,
        enable_true_multi_threading=True,
    )
    reserved: dict[str, Any] = {"compute": actors, "num_cpus": pool.cpus, "num_gpus": pool.gpus}
    reserved |= avoiding(pool.excluded)
    dataset = dataset.map_batches(scorer, fn_constructor_kwargs=arguments, **one_item, **reserved)
    try:
        with raise_member_errors():
            # No prefetching, which would hold each result back until the next arrives.
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from cast(pa.Table, block).to_pylist()
    finally:
        del dataset  # An error's traceback holds this frame, and the actors would live as long as it does.


@contextmanager
def raise_member_errors() -> Iterator[None]:
    """Raises the `RunError` of a worker in place of Ray's wrapper around it."""
    try:
        yield
    except RayError as error:
        _release_actors(error)
        cause: BaseException | None = error
        while cause is not None:
            # Ray's wrappers are also RunErrors, with a traceback as text, and Ray appends advice to our sentence.
            if isinstance(cause, RunError) and not isinstance(cause, RayError):
                raise type(cause)(str(cause).partition("\n")[0], *cause.args[1:]) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(error, RayTaskError):  # a bug: shows its traceback
            raise
        reason = str(error).strip().rpartition("\n")[2].strip()
        raise RunError(f"Ray gave up ({type(error).__name__}: {reason}); start the same command again") from error


def _release_actors(error: BaseException) -> None:
    """Drops what the frames of an error hold: Ray Data ends actors only once nothing refers to their pool."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        each = found.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            for frame, _ in traceback.walk_tb(each.__traceback__):
                _clear(frame)
            found += [each.__cause__, each.__context__]
    gc.collect()


def _clear(frame: FrameType | None) -> None:
    """Drops the variables of a frame and of those that called it, without frames that still run."""
    while frame is not None:
        with suppress(RuntimeError):
            frame.clear()
        frame = frame.f_back
