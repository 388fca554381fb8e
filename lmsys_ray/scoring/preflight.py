"""Checks that fail early: inputs, models and outputs that do not exist, before a run starts anything."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from lmsys_ray.data.readers import check_columns, expand_inputs, read_rows
from lmsys_ray.data.readers.files import is_of_run
from lmsys_ray.data.schemas.reading import Reading, row_names
from lmsys_ray.ensemble.exports.preferences import lack_of_labels
from lmsys_ray.errors import UsageError
from lmsys_ray.members.protocol import ChecksIds
from lmsys_ray.members.registry import kind_of
from lmsys_ray.scoring.reading import recognised
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import exists, is_directory, path_of

_FIRST_ROWS = 1000
"""Rows of the input whose ids are looked for in members that find rows by id."""


def check(settings: Settings, say: Callable[[str], None] = lambda sentence: None) -> Settings:
    """Returns the settings, with models of the hub pinned to their present commit; tells how the input is read.

    Raises `UsageError` for inputs, models or artefacts that do not exist, for inputs without a needed column, for a
    member that does not read rows as its adapter was trained to, for one that knows other rows than the input's,
    and for preferences that need labels where the input has none.
    """
    if not settings.output.strip():
        raise UsageError(f"settings: output = {settings.output!r} is not a name; name a directory")
    files = expand_inputs(settings.input, settings.output)
    reading, sentences = recognised(settings, files)
    for file in files:
        check_columns(file, reading=reading)
    for sentence in sentences:
        say(sentence)
    if lack := lack_of_labels(settings.outputs.preferences, reading.carried, "the input has"):
        raise UsageError(lack)
    output = path_of(settings.output)
    if exists(output) and not is_directory(output):
        raise UsageError(f"settings: output = {output} is a file; name a directory")
    _check_foreign(settings)
    members = {name: kind_of(m).preflight(m, f"members.{name}") for name, m in settings.members.items()}
    settings = settings.model_copy(update={"members": members})
    _check_ids(settings, files, reading)
    return settings


def _check_foreign(settings: Settings) -> None:
    """Raises `UsageError` where a member would be made from what this run writes."""
    for name, member in settings.members.items():
        for key, path in member.named_artifacts().items():
            if is_of_run(path, settings.output):
                raise UsageError(f"settings: members.{name}.{key} = {path} is of this run's own output; name another")


def _check_ids(settings: Settings, files: Sequence[str], reading: Reading) -> None:
    """Asks the members that find rows by id whether they have those of the first rows."""
    asked = [(name, member, kind_of(member)) for name, member in settings.members.items()]
    checking = [(name, member, kind) for name, member, kind in asked if isinstance(kind, ChecksIds)]
    if checking:
        rows = min(_FIRST_ROWS, settings.limit or _FIRST_ROWS)
        tables = read_rows(
            files[0],
            settings.cells,
            limit=rows,
            largest_cell=settings.largest_cell,
            reading=reading,
            name=row_names(files)[0],
        )
        ids = pa.chunked_array([table["id"].combine_chunks() for table in tables], pa.string()).drop_null()
        for name, member, kind in checking:
            kind.check_ids(member, f"members.{name}", ids.combine_chunks())
