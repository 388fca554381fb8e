"""What all tests share: one local Ray cluster with two pretended GPUs, started when the first test asks for it."""

import gc
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.models"]

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LMSYS_RAY_PRETEND_GPUS"] = "1"

# Set before Ray starts, whose workers inherit it: the server that tests/storage starts, and no account of anybody.
with socket.create_server(("127.0.0.1", 0)) as free:
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free.getsockname()[1]}"
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session", autouse=True)
def no_token_in_the_home() -> Iterator[None]:
    """Asserts that no test has written the token of whoever runs them, as Ray does for a cluster without one."""
    token = Path.home() / ".ray" / "auth_token"
    before = token.stat().st_mtime_ns if token.exists() else None
    yield
    assert before == (token.stat().st_mtime_ns if token.exists() else None), f"{token} is of a test"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    import ray
    from ray import _raylet

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray has read the environment at its import, and keeps what it reads now.
        _raylet.Config.initialize("")
        _raylet.AuthenticationTokenLoader.instance().reset_cache()
        ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def gpus_given_back() -> Iterator[None]:
    """Asserts that the tests of a file leave no actor behind, which would hold a GPU that the next file waits for."""
    yield
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    gc.collect()  # An error that a test kept refers to the actors of its pass.
    deadline = time.monotonic() + 60
    while (free := ray.available_resources().get("GPU", 0)) < (held := ray.cluster_resources().get("GPU", 0)):
        assert time.monotonic() < deadline, f"{held - free:g} GPUs are still held: {actors_alive()}"
        time.sleep(0.2)


def actors_alive() -> list[str]:
    import psutil

    titles = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [title for title in titles if title.startswith("ray::") and "IDLE" not in title]
