"""Streams conversation files: yields every row, as a usable record or with the reason why it is not usable."""

from lmsys_ray.data.readers.checks import READ
from lmsys_ray.data.readers.files import expand_inputs
from lmsys_ray.data.readers.records import BEGINNING, LARGEST_CELL, ReadPosition
from lmsys_ray.data.readers.rows import check_columns, head, read_rows

__all__ = ["BEGINNING", "LARGEST_CELL", "READ", "ReadPosition", "check_columns", "expand_inputs", "head", "read_rows"]
