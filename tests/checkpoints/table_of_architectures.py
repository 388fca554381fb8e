"""Prints how each classifier of transformers is scored: python -m tests.checkpoints.table_of_architectures."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import transformers

from lmsys_ray.quiet import quiet_libraries
from tests.checkpoints.architectures import CONFIGS, VARIANTS, is_decoder
from tests.checkpoints.test_architectures import by_transformers, saved, scorer_or_refusal
from tests.members.classifier.test_scorer import LENGTHS, encoded


def row(name: str) -> str | None:
    """Returns a line of the table; none for what is no decoder."""
    if not is_decoder(VARIANTS.get(name, (name, {}))[0]):
        return None
    with TemporaryDirectory() as folder:
        directory, table = saved(name, Path(folder, "model")), encoded(LENGTHS)
        cells = [name]
        for padding in ("none", "longest"):
            found = scorer_or_refusal(directory, padding)
            if isinstance(found, str):
                cells.append("refused")
                continue
            expected = by_transformers(directory, table["input_ids"].to_pylist())
            form = found.facts["padding"].replace("none", "packed")
            masked = " and a mask" if found.facts["padding_masked"] else ""
            cells.append(f"{form}{masked} {np.abs(found.score(table).probabilities - expected).max():.0e}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    with quiet_libraries():
        print(f"transformers {transformers.__version__}\n")
        print("| architecture | `padding: none` | `padding: longest` |\n| --- | --- | --- |")
        others = []
        for name in [*sorted(CONFIGS), *VARIANTS]:
            line = row(name)
            if line is None:
                others.append(name)
            else:
                print(line, flush=True)
    print(f"\nNot in the table, since they have no head named `score`: {', '.join(others)}.")


if __name__ == "__main__":
    sys.exit(main())
