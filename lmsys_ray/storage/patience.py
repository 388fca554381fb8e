"""Limits the wait for a storage that accepts requests without answering to minutes.

s3fs waits 5 s for a connection and 15 s for each part of an answer, and botocore tries each request 5 times, unless
AWS_MAX_ATTEMPTS or the profile says otherwise. s3fs repeats that 5 times, twice over when it reads: half an hour. gcsfs
gives a request 5 minutes. The client of the Hugging Face hub waits for ever for a listing.
"""

from functools import cache
from typing import Any

_S3_TRIES = 2
"""Tries of s3fs around those of botocore: one more for an answer that broke off, which botocore does not see."""

_HUB_SECONDS = 20.0
"""For each part of an answer of the hub, unless a request sets its own; such requests are tried six times."""


def bound_waiting(protocol: str, file_system: Any) -> None:
    """Makes the file systems of a class, those of `protocol`, give up after minutes; lower settings are kept."""
    if protocol in ("s3", "s3a"):
        file_system.retries = min(file_system.retries, _S3_TRIES)
    elif protocol == "hf":
        _bound_hub()


@cache
def _bound_hub() -> None:
    from huggingface_hub import set_client_factory  # takes a second to load, which other storages need not
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.timeout = _HUB_SECONDS
        return made

    set_client_factory(client)
