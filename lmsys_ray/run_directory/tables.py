"""Reads and writes the sealed tables of a run directory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from lmsys_ray.errors import DamagedError
from lmsys_ray.run_directory import sealed_parquet as sealed
from lmsys_ray.run_directory.table_forms import Form
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.files import AnyPath

_READERS = 4
"""Threads that read ahead; most of their time is waiting for a disk or a network."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def write_table(table: pa.Table, path: AnyPath, label: str = "") -> None:
    """Writes a sealed Parquet file (see `sealed_parquet`), whole or not at all; raises as `write_bytes` does."""
    storage.write_bytes(path, sealed.to_bytes(table, label))


def read_table(
    path: AnyPath, columns: Sequence[str] | None = None, label: str | None = None, form: Form | None = None
) -> pa.Table:
    """Reads a file of `write_table`, or `columns` of it.

    Raises `DamagedError` for a file that is missing, damaged, of another form than `form`, or has another label than
    `label`; None accepts any.
    """
    try:
        return sealed.from_bytes(storage.read_bytes(path), columns, label, form)
    except FileNotFoundError:
        raise DamagedError(f"{path} is gone; a start of score.py makes it again") from None
    except sealed.SealError as error:
        raise DamagedError(f"{path} is damaged ({error}); a start of score.py makes it again") from None


def prefetched(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields the results of `function` for each item, in order, while threads compute the next few."""
    with ThreadPoolExecutor(_READERS) as pool:
        under_way: deque[Future[Result]] = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > _READERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
