"""A real S3 server on this machine, and buckets on it that tests may do harm to."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    url = os.environ["AWS_ENDPOINT_URL"]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=urlsplit(url).port or 0, verbose=False)
    server.start()
    yield url
    server.stop()


class Bucket:
    """A bucket, looked at and changed behind the back of what is tested."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = f"s3://{name}"
        self._client: Any = boto3.client("s3")
        self._client.create_bucket(Bucket=name)

    def put(self, key: str, data: bytes) -> str:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def listing(self, prefix: str = "") -> list[str]:
        return [
            item["Key"] for item in self._client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])
        ]

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def uploads(self) -> int:
        """Returns how many uploads in parts are neither completed nor aborted."""
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return Bucket(f"bucket-{next(_NUMBERS)}")


@pytest.fixture
def denied_after(endpoint: str) -> Iterator[Callable[[float], None]]:
    """Returns what has the server deny access after so many further requests; `inf`: never."""

    def deny(requests_left: float) -> None:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=str(requests_left), timeout=10)

    yield deny
    deny(float("inf"))
