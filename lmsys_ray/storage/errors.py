"""Turns what keeps a file from being read or written into one sentence: the place, the reason and what to do."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmsys_ray.errors import RunError, UsageError

if TYPE_CHECKING:
    from upath import UPath

_LOCAL_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # may not be written
    *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EIO),  # gone or failing
    *(
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    ),  # a file in a folder's place, or the other way round
}

_BESIDE_OSERROR = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
)
"""Errors of the libraries behind URLs that are not an `OSError`; only loaded modules are looked at."""

_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"),
    *("DefaultCredentialsError", "RefreshError"),
}
_UNREACHABLE = {
    *("ConnectionError", "TimeoutError", "HTTPClientError"),
    *("ClientConnectionError", "TransportError"),
}

_CREDENTIAL = re.compile(
    r"(?:s3a?|gcs?|gs|https?)://[^/]*@"  # a user before the host
    r"|[a-z][a-z0-9+.-]*://(?!arn:)[^/@]*:(?!\d+(?:/|$))[^@]*@"  # with a password, which may contain slashes
    r"|://.*[?&][^=&]*(?:token|secret|passw|key|sig|credential|auth)[^=&]*=",
    re.IGNORECASE,
)


def refuse_credentials(name: str, place: str = "") -> None:
    """Raises `UsageError` for a URL that holds a key, a password or a token, without repeating it."""
    if _CREDENTIAL.search(name):
        protocol = name.partition("://")[0][-12:]
        raise UsageError(
            f"{place}a URL of {protocol}:// holds a credential, which would be written into the run directory; leave "
            "it out and give it by the environment, a profile or the machine's role"
        )


@contextmanager
def storage_errors(path: "Path | UPath", action: str, let_through: type[Exception] | None = None) -> Iterator[None]:
    """Turns errors of a disk or storage into a `RunError`: `path` cannot be read, written, ... (`action`).

    Errors of the type `let_through`, and those that no disk or storage causes, are raised as they are.
    """
    try:
        yield
    except _faults() as error:
        if let_through and isinstance(error, let_through):
            raise
        if isinstance(path, Path):
            if action in ("written", "made") and getattr(error, "errno", None) not in _LOCAL_FAULTS:
                raise
            number = getattr(error, "errno", None) or errno.EIO
            in_the_way = number == errno.EEXIST  # when a folder is made; a file may be overwritten
            reason, remedy = "a file is in its place" if in_the_way else os.strerror(number), "mend that"
        else:
            reason, remedy = _explained(path, error)
        kept = ", what is done is kept, or choose another --output" if action == "written" else ""
        raise RunError(
            f"{path} cannot be {action} ({reason}); {remedy} and start the same command again{kept}"
        ) from None


def _faults() -> tuple[type[Exception], ...]:
    loaded = [(sys.modules[module], name) for module, name in _BESIDE_OSERROR if module in sys.modules]
    return (OSError, *(getattr(module, name) for module, name in loaded))


def _explained(path: "UPath", error: Exception) -> tuple[str, str]:
    """Returns the reason and the remedy for an error of object storage."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = " ".join(str(error.args[-1] if isinstance(error, OSError) and error.args else error).split())[:160]
    if kinds & _NO_CREDENTIALS:
        return f"no credentials: {said}", "set AWS_PROFILE or the keys in the environment, or give the machine a role"
    if isinstance(error, PermissionError):
        return f"access denied: {said}", "check the credentials and their rights"
    if kinds & _UNREACHABLE:
        also = " and AWS_ENDPOINT_URL" if path.protocol.startswith("s3") else ""
        return f"out of reach: {said}", f"check the connection{also}"
    if isinstance(error, FileNotFoundError):
        return f"not there: {said}", "check the bucket and the name"
    return said or type(error).__name__, "mend that"
