"""What keeps a file from being reached, in one sentence: the place, the reason and what to do."""

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
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # not to be written
    *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EIO),  # gone or failing
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
"""What the libraries behind URLs raise where no `OSError` says it; one that is not loaded has raised nothing."""

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
    r"(?:s3a?|gcs?|gs|https?)://[^/]*@"  # who reads, before the place
    r"|[a-z][a-z0-9+.-]*://(?!arn:)[^/@]*:(?!\d+(?:/|$))[^@]*@"  # with a password, in which slashes may stand
    r"|://.*[?&][^=&]*(?:token|secret|passw|key|sig|credential|auth)[^=&]*=",
    re.IGNORECASE,
)


def refuse_credentials(name: str, place: str = "") -> None:
    """Raises `UsageError`, which does not repeat it, for a URL that holds a key, a password or a token."""
    if _CREDENTIAL.search(name):
        protocol = name.partition("://")[0][-12:]
        raise UsageError(
            f"{place}a URL of {protocol}:// holds a credential, which would be written into the run directory; leave "
            "it out and give it by the environment, a profile or the machine's role"
        )


@contextmanager
def reaching(path: "Path | UPath", deed: str, passing: type[Exception] | None = None) -> Iterator[None]:
    """Turns what keeps `path` from being read, written, ... (`deed`) into a `RunError`; `passing` stays as it is.

    What no disk or storage brings about comes through.
    """
    try:
        yield
    except _faults() as error:
        if passing and isinstance(error, passing):
            raise
        if isinstance(path, Path):
            if deed == "written" and getattr(error, "errno", None) not in _LOCAL_FAULTS:
                raise
            reason, remedy = os.strerror(getattr(error, "errno", None) or errno.EIO), "mend that"
        else:
            reason, remedy = _explained(path, error)
        kept = ", what is done is kept, or choose another --output" if deed == "written" else ""
        raise RunError(f"{path} cannot be {deed} ({reason}); {remedy} and start the same command again{kept}") from None


def _faults() -> tuple[type[Exception], ...]:
    loaded = [(sys.modules[module], name) for module, name in _BESIDE_OSERROR if module in sys.modules]
    return (OSError, *(getattr(module, name) for module, name in loaded))


def _explained(path: "UPath", error: Exception) -> tuple[str, str]:
    """Returns the reason and the remedy of a fault of storage."""
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
