"""What can be known to fail before a run starts anything: names that lead nowhere."""

from pathlib import Path

from lmsys_ray.config import LightGBMSettings, LlamaSettings, Settings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.sources import check_as_trained, pinned, read_scoring
from lmsys_ray.readers import check_columns, expand_inputs
from lmsys_ray.resources import PREFIX, locate
from lmsys_ray.storage import exists, is_directory, path_of


def checked(settings: Settings) -> Settings:
    """Returns the settings with the models of the hub named by the commit that they mean now.

    Raises `UsageError` for inputs, models or artefacts that do not exist, for inputs without a needed column, and for
    a member that does not read rows as its adapter learnt to.
    """
    for file in expand_inputs(settings.input):
        check_columns(file)
    output = path_of(settings.output)
    if exists(output) and not is_directory(output):
        raise UsageError(f"settings: output = {output} is a file; name a directory")
    for name, member in settings.members.items():
        for key in ("artifacts",) if isinstance(member, LightGBMSettings) else ("model", "adapter"):
            value = getattr(member, key)
            if value is not None:
                _check_path(f"members.{name}.{key}", value, hub=isinstance(member, LlamaSettings))
        if isinstance(member, LlamaSettings) and member.adapter is not None:
            _check_as_trained(name, member, member.adapter)
    return settings.model_copy(update={"members": {name: _pinned(m) for name, m in settings.members.items()}})


def _pinned(member: LlamaSettings | LightGBMSettings) -> LlamaSettings | LightGBMSettings:
    if isinstance(member, LightGBMSettings):
        return member
    adapter = None if member.adapter is None else pinned(member.adapter)
    return member.model_copy(update={"model": pinned(member.model), "adapter": adapter})


def _check_as_trained(name: str, member: LlamaSettings, adapter: str) -> None:
    """Asks a local adapter's own note how it reads rows; of others the actors do, which fetch them anyway."""
    path = path_of(locate(adapter))
    if isinstance(path, Path) and path.is_dir():
        try:
            check_as_trained(read_scoring(adapter), member)
        except UsageError as error:
            raise UsageError(f"members.{name}: {error}") from None


def _check_path(key: str, value: str, hub: bool) -> None:
    """A name with one slash at most, and no sign of a path, may be a hub id."""
    located = locate(value)
    if exists(path_of(located).expanduser()):
        return
    may_be_hub = hub and (
        located.startswith(PREFIX) or (located.partition("@")[0].count("/") <= 1 and located[0] not in "/.~")
    )
    if not may_be_hub or located.endswith(".gguf"):
        accepted = "an existing directory, a GGUF file or a hub id" if hub else "an existing directory"
        raise UsageError(f"settings: {key} = {value!r} does not exist; accepted: {accepted}, or a packaged name")
