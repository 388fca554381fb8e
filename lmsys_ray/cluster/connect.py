"""Connects to the cluster of a submitted job, or starts Ray on this machine."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
import yaml
from ray.data import DataContext

from lmsys_ray.cluster.local_ray import local_ray
from lmsys_ray.cluster.remote_ray import cluster_address, joined
from lmsys_ray.cluster.resources import Resources

_LAUNCHED = Path("~/ray_bootstrap_config.yaml")
"""The cluster file, which `ray up` puts on the head, where the drivers of submitted jobs run."""


@contextmanager
def ray_cluster(allow_unauthenticated: bool = False, say: Callable[[str], None] = print) -> Iterator[Resources]:
    """Connects to the cluster in `RAY_ADDRESS`, which Ray sets for a submitted job, else starts a local Ray.

    An existing connection of this process is used and kept. `say` reports a cluster that stops answering. Raises
    `UsageError` or `RunError` for a cluster that cannot be reached or is open to strangers, or a Ray that does not
    start.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray 2.60 logs a warning for every actor pool of Ray Data at the level ERROR; no caller can avoid it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    connected = ray.is_initialized()
    address = None if connected else cluster_address()
    with ExitStack() as stack:
        if not connected:
            stack.enter_context(joined(address, allow_unauthenticated, say) if address else local_ray())
        _set_up_ray_data()
        yield present_resources(grows=connected or address is not None)


def present_resources(grows: bool, excluded: frozenset[str] = frozenset()) -> Resources:
    """Returns the resources of the cluster without the nodes `excluded`; `grows`: whether nodes may join."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in excluded]
    cpus, gpus = (int(sum(node.get(resource, 0) for node in nodes)) for resource in ("CPU", "GPU"))
    cpus = max(1, cpus)
    return Resources(cpus, gpus, grows, grows and launched_with_gpus())


def launched_with_gpus() -> bool:
    """Returns whether this node is the head of a cluster of `ray up` that may start workers with GPUs.

    It reads the cluster file, since Ray has no API for what its autoscaler may start.
    """
    path = _LAUNCHED.expanduser()
    if not path.is_file():
        return False
    types = yaml.safe_load(path.read_text(encoding="utf-8")).get("available_node_types", {}).values()
    return any(node.get("resources", {}).get("GPU", 0) > 0 < node.get("max_workers", 0) for node in types)


def _set_up_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # each actor would read its memory map once a second
    context.raise_original_map_exception = True  # so that a member's error reaches the user unchanged
    logging.getLogger("ray").setLevel(logging.ERROR)
    for handler in logging.getLogger("ray.data").handlers:
        # Its log file keeps everything; the terminal shows the sentences of this package instead.
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
