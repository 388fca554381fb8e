"""Nodes of a cluster that do not see a run's files; the run continues on the others."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmsys_ray.cluster.shared_files import SharedFiles, fault_here
from lmsys_ray.errors import ExcludedNodeError, RunError
from lmsys_ray.run_directory.layout import RunDirectory

Result = TypeVar("Result")

_ANSWER_SECONDS = 60.0
"""A node that takes longer, because it installs packages first, is checked by its own workers (`check_here`)."""


def check_here(shared: SharedFiles) -> None:
    """Raises `ExcludedNodeError`, which names the node, where this worker does not see what the driver sees."""
    fault = fault_here(shared)
    if fault:
        address, node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()
        raise ExcludedNodeError(f"node {address} ({node[:8]}) does not see the run's files: {fault}")


def avoiding(nodes: Collection[str]) -> dict[str, Any]:
    """Returns the options that keep a task or an actor off the nodes with these ids."""
    return {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"}} if nodes else {}


def find_excluded(
    run: RunDirectory,
    start: str,
    names: Iterable[str],
    resources: Collection[str],
    look: bool,
    say: Callable[[str], None],
) -> "ExcludedNodes":
    """Returns the nodes that do not see the run directory, with the lock token `start`, or the files of `names`.

    Without `look` no node is asked yet, as where the driver's own node is the only one.
    """
    nodes = ExcludedNodes(SharedFiles.of(run, start, names), resources, say)
    if look:
        nodes.look()
    return nodes


class ExcludedNodes:
    """The nodes that were found not to see the run's files."""

    def __init__(self, shared: SharedFiles, resources: Collection[str], say: Callable[[str], None]) -> None:
        """`resources` (CPU, GPU) are those that the run needs: with all their nodes excluded it cannot continue."""
        self.shared = shared
        self._resources = resources
        self._say = say
        self._looking = threading.Lock()  # Passes run side by side.
        self._checked: set[str] = set()
        self.ids: frozenset[str] = frozenset()

    def retry_excluding(self, work: Callable[[], Result]) -> Result:
        """Returns the result of `work`, run again for as long as it meets nodes that were not excluded yet."""
        while True:
            known = self.ids
            try:
                return work()
            except ExcludedNodeError:
                self.look()
                if self.ids == known:
                    raise

    def look(self) -> None:
        """Asks the nodes that are new, and says which of them are excluded.

        Raises `RunError` where that leaves no node with a resource that the run needs.
        """
        with self._looking:
            self._look()

    def _look(self) -> None:
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        self._checked.add(ray.get_runtime_context().get_node_id())
        new = [node for node in nodes if node not in self._checked | self.ids]
        faults = self._faults([node for node in new if _computes(nodes[node])])
        found = {node: fault for node, fault in faults.items() if fault}
        self._checked |= faults.keys() - found.keys()
        self.ids |= found.keys()
        for node, fault in found.items():
            self._say(f"node {_name(nodes[node])} does not see the run's files and is left out: {fault}")
        for resource in self._resources if found else ():
            having = {node for node in nodes if nodes[node]["Resources"].get(resource, 0) > 0}
            if having and having <= self.ids:
                raise RunError(
                    f"no node with {resource}s sees the run's files ({next(iter(found.values()))}); put the run "
                    "directory, inputs and models where all nodes see them under one path, or into object storage"
                )

    def _faults(self, nodes: Collection[str]) -> dict[str, str | None]:
        """Returns what each node does not see, without the nodes that do not answer in time or are lost."""
        asked = {_ask(node, self.shared): node for node in nodes}
        answers = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)[0] if asked else []
        found = {}
        for answer in answers:
            try:
                found[asked[answer]] = ray.get(answer)
            except RayError:
                continue
        return found


@ray.remote(num_cpus=0, max_retries=1)
def _fault(shared: SharedFiles) -> str | None:
    return fault_here(shared)


def _ask(node: str, shared: SharedFiles) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return _fault.options(scheduling_strategy=there).remote(shared)


def _computes(node: Mapping[str, Any]) -> bool:
    return any(node["Resources"].get(resource, 0) > 0 for resource in ("CPU", "GPU"))


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
