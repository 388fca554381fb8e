"""Checks that settings of members name files or models that exist."""

from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import exists, path_of
from lmsys_ray.storage.packaged import PREFIX, locate


def check_path(key: str, value: str, hub: bool, accepted: str = "an existing directory") -> None:
    """Raises `UsageError` where `value` of the setting `key` does not exist and, if `hub`, cannot be a hub id.

    A name that has at most one slash and does not begin like a path may be a hub id. `accepted` is for the sentence.
    """
    located = locate(value)
    try:
        there = exists(path_of(located).expanduser())
    except RuntimeError:
        raise UsageError(f"settings: {key} = {value!r} begins with a user that this machine does not know") from None
    if there:
        return
    may_be_hub = hub and (
        located.startswith(PREFIX) or (located.partition("@")[0].count("/") <= 1 and located[0] not in "/.~")
    )
    if not may_be_hub or located.endswith(".gguf"):
        accepted = f"{accepted}, a GGUF file or a hub id" if hub else accepted
        raise UsageError(f"settings: {key} = {value!r} does not exist; accepted: {accepted}, or a packaged name")
