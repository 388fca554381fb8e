"""Connects to a running cluster, refuses one that is open to strangers, and notices when it is lost."""

import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import grpc
import ray
from ray._private import worker as ray_worker
from ray._private.utils import read_ray_address

from lmsys_ray.cluster import ray_messages
from lmsys_ray.cluster.local_ray import native_output_held, sigterm_kept
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.output import end
from lmsys_ray.polling import PollThread

_REACH_SECONDS = 20.0
_CONNECT_SECONDS = 120.0
"""Ray itself may wait for ever if something else listens at the address."""

_LOST_SECONDS = 50.0
"""Less than the minute after which Ray's core ends a process without a word if the GCS does not answer."""

_LINE_SECONDS = 20.0
_POLL_SECONDS = 5.0


def cluster_address() -> str | None:
    """Returns the address of the cluster in `RAY_ADDRESS`; None if Ray should start on this machine.

    Raises `UsageError` for a value that is not an address of a cluster.
    """
    name = os.environ.get("RAY_ADDRESS", "")
    if name in ("", "local"):
        return None
    alone = "or unset it to run on this machine alone"
    if name == "auto":
        found = read_ray_address(None)
        if not found:
            raise UsageError(
                "RAY_ADDRESS = auto, but `ray start` has started no cluster on this machine; start one, set it to "
                f"HOST:PORT, {alone}"
            )
        return str(found)
    if "://" in name:
        raise UsageError(
            f"RAY_ADDRESS = {name} is an address of Ray Client, which this command does not use; submit it with "
            f"`ray job submit`, set HOST:PORT of the cluster's head, {alone}"
        )
    host, _, port = name.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"RAY_ADDRESS = {name!r} is not accepted; set HOST:PORT of a cluster's head, {alone}")
    return name


@contextmanager
def joined(address: str, allow_unauthenticated: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Connects to the cluster at `address` with the authentication in the environment.

    `say` reports a cluster that stops answering, and the command ends with a sentence if it stays silent. Raises
    `RunError` where no cluster answers, and for one of several machines that is open to strangers, unless allowed.
    """
    _wait_for(address)
    _connect(address)
    if not allow_unauthenticated:
        _refuse_open(ray.get_runtime_context().gcs_address)
    watch = PollThread("watch over the cluster", _POLL_SECONDS, _Watch(address, say).poll)
    watch.start()
    over = threading.Event()
    threading.Thread(target=_watch_raylet, args=(_raylet(), over), name="watch over the raylet", daemon=True).start()
    yield
    over.set()
    watch.cancel()
    # Not after an error: other threads may wait for Ray, whose core would then end the process without a word.
    ray.shutdown()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + _REACH_SECONDS
    while (fault := _fault(address)) is not None:
        if time.monotonic() > deadline:
            raise RunError(
                f"no Ray cluster answers at {address}, which RAY_ADDRESS names ({fault}); start its head, set another, "
                "or unset it to run on this machine alone"
            )
        time.sleep(1)


def _fault(address: str) -> str | None:
    """Returns why HOST:PORT does not accept a connection; None if it does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_POLL_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _connect(address: str) -> None:
    named = f"{address}, which RAY_ADDRESS names,"
    line = f"error: what listens at {named} did not answer as a Ray cluster in {_CONNECT_SECONDS:g} s"
    deadline = threading.Timer(_CONNECT_SECONDS, end, [line, RunError.exit_code])
    deadline.daemon = True
    deadline.start()
    try:
        with native_output_held(), sigterm_kept():
            ray_messages.to_logging()
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise RunError(
            f"the cluster at {named} could not be joined ({reason}); check that its Ray and Python are the same as "
            "here, and its token"
        ) from error
    finally:
        deadline.cancel()


def _raylet() -> int:
    """Returns the process of the raylet through which this process is connected."""
    node = ray_worker._global_node
    assert node is not None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(node.raylet_socket_name)
        size = struct.calcsize("3i")
        process, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    found: int = process
    return found


def _watch_raylet(process: int, over: threading.Event) -> None:
    """Ends the command with a sentence when the raylet ends, before Ray's core ends it with a text of its own."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process)
        select.select([descriptor], [], [])
        os.close(descriptor)
    if not over.is_set():
        end(
            f"error: Ray's raylet on this machine (process {process}) ended, and with it the way to the cluster; start "
            "this node again, then the same command, which resumes from what is done",
            RunError.exit_code,
        )


def _refuse_open(gcs_address: str) -> None:
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(machines) > 1 and answers_strangers(gcs_address):
        raise RunError(
            f"the cluster at {gcs_address} has {len(machines)} machines and no authentication: whoever reaches its "
            "ports can run code on them; start its nodes with RAY_AUTH_MODE=token, or accept that by "
            "--set allow_unauthenticated=true"
        )


def answers_strangers(gcs_address: str) -> bool:
    """Returns whether a cluster tells its id to a client without a token or certificate."""
    with grpc.insecure_channel(gcs_address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        with suppress(grpc.RpcError):
            ask(b"", timeout=30)
            return True
    return False


class _Watch:
    """Says when a cluster stops answering, and ends the command when it stays silent."""

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self._address = address
        self._say = say
        self._answered = self._last_line = time.monotonic()

    def poll(self) -> None:
        """Checks once whether the cluster answers."""
        fault, now = _fault(self._address), time.monotonic()
        silence = now - self._answered
        if fault is None:
            self._answered = now
        elif silence >= _LOST_SECONDS:
            end(
                f"error: the cluster at {self._address} has not answered for {silence:.0f} s ({fault}); what is done "
                "is kept, start the same command again once it is there",
                RunError.exit_code,
            )
        elif now - max(self._answered, self._last_line) >= _LINE_SECONDS:
            self._last_line = now
            self._say(f"the cluster at {self._address} has not answered for {silence:.0f} s ({fault})")
