"""What all tests share: one local Ray cluster with two pretended GPUs, started when the first test asks for it."""

import os
import socket
from collections.abc import Iterator

import pytest

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LMSYS_RAY_PRETEND_GPUS"] = "1"

# Set before Ray starts, whose workers inherit it: the server that tests/storage starts, and no account of anybody.
with socket.create_server(("127.0.0.1", 0)) as free:
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{free.getsockname()[1]}"
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
