"""A cluster that RAY_ADDRESS names: found, told apart from nothing, and refused where it obeys strangers."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import ray

from lmsys_ray.cluster import remote_ray
from lmsys_ray.errors import RunError, UsageError


@pytest.mark.parametrize(("value", "address"), [("", None), ("local", None), ("10.0.0.1:6379", "10.0.0.1:6379")])
def test_address_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, address: str | None) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert remote_ray.cluster_address() == address


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("auto", "RAY_ADDRESS = auto, but `ray start` has started no cluster on this machine"),
        ("ray://10.0.0.1:10001", "RAY_ADDRESS = ray://10.0.0.1:10001 is an address of Ray Client"),
        ("somewhere", "RAY_ADDRESS = 'somewhere' is not accepted; set HOST:PORT"),
        ("host:0", "RAY_ADDRESS = 'host:0' is not accepted"),
        ("host:99999", "RAY_ADDRESS = 'host:99999' is not accepted"),
    ],
)
def test_an_address_that_names_no_cluster_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, sentence: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UsageError) as refused:
        remote_ray.cluster_address()
    assert str(refused.value).startswith(sentence)


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_address_is_one_sentence_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_ray, "_REACH_SECONDS", 1.5)
    address = free_address()
    began = time.monotonic()
    with (
        pytest.raises(
            RunError, match=rf"no Ray cluster answers at {address}, which RAY_ADDRESS names \(Connection refused\)"
        ),
        remote_ray.joined(address, False, print),
    ):
        pass
    assert time.monotonic() - began < 10


MUTE = """
import sys
from lmsys_ray.cluster import remote_ray
remote_ray._CONNECT_SECONDS = 3
with remote_ray.joined(sys.argv[1], False, print):
    pass
"""


def test_something_else_that_listens_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        done = subprocess.run(
            [sys.executable, "-c", MUTE, address], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: what listens at {address}, which RAY_ADDRESS names, did not answer as a Ray cluster in 3 s\n"
    )


class _Head(grpc.GenericRpcHandler):
    """Answers as a cluster's GCS does, with authentication or without."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self._token and ("authorization", f"Bearer {self._token}") not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b"id"

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture(params=[None, "secret"])
def head(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    server = grpc.server(ThreadPoolExecutor(1), [_Head(request.param)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", request.param is None
    server.stop(None)


@pytest.mark.parametrize("machines", [1, 2])
def test_several_machines_that_obey_strangers_are_refused(
    monkeypatch: pytest.MonkeyPatch, head: tuple[str, bool], machines: int
) -> None:
    address, is_open = head
    nodes = [{"Alive": True, "NodeManagerAddress": f"10.0.0.{n % machines}"} for n in range(3)]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "NodeManagerAddress": "10.9.9.9"}])
    assert remote_ray.answers_strangers(address) is is_open
    if is_open and machines > 1:
        with pytest.raises(RunError, match=r"has 2 machines and no authentication: .*--set allow_unauthenticated=true"):
            remote_ray._refuse_open(address)
    else:
        remote_ray._refuse_open(address)


LOST = """
import sys, time
from lmsys_ray.cluster import remote_ray
remote_ray._LOST_SECONDS, remote_ray._LINE_SECONDS = 3, 1
watch = remote_ray._Watch(sys.argv[1], lambda line: print(line, flush=True))
while True:
    time.sleep(0.2)
    watch.poll()
"""


def test_a_cluster_that_is_lost_ends_the_command_with_a_sentence() -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=1000)  # so many are answered before one is accepted
    address = f"127.0.0.1:{server.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-c", LOST, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(6)
    assert process.poll() is None
    server.close()
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.startswith(f"the cluster at {address} has not answered for ")
    assert errors.startswith(f"error: the cluster at {address} has not answered for ")
