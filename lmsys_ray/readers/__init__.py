"""Reads conversation files in a stream: every row comes out, as a usable record or with the reason why not."""

from lmsys_ray.readers.checks import READ
from lmsys_ray.readers.files import expand_inputs
from lmsys_ray.readers.records import BEGINNING, Start
from lmsys_ray.readers.rows import check_columns, read_rows

__all__ = ["BEGINNING", "READ", "Start", "check_columns", "expand_inputs", "read_rows"]
