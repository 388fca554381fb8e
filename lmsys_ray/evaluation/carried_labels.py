"""The labels that travel with the rows of a run, for evaluations without a file of labels."""

import numpy as np
import pyarrow as pa

from lmsys_ray.data.labels import SOURCE, Labels, read_labels
from lmsys_ray.errors import UsageError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched


def labels_for(run: RunDirectory, path: str | None) -> Labels:
    """Returns the labels in the file `path`, or those that the rows of `run` carry.

    Raises `UsageError` where there is neither, and as `read_labels` does.
    """
    return carried_labels(run) if path is None else read_labels(path)


def carried_labels(run: RunDirectory) -> Labels:
    """Returns the labels of a run's rows, with their sources; raises `UsageError` where no row has one."""
    manifest = run.read_manifest()
    shards = manifest.ingested.shards if manifest and manifest.ingested else 0
    bound = RunDirectory(run.path, manifest.binding) if manifest else run
    carried = bound.carried() if shards else []
    found: list[pa.Table] = []
    if "label" in carried:
        columns = ["id", "label", *([SOURCE] if SOURCE in carried else [])]
        for shard in prefetched(lambda number: bound.read_shard(number, columns), range(shards)):
            found.append(shard.filter(shard["label"].is_valid()))
    if not sum(table.num_rows for table in found):
        raise UsageError(f"--labels: the rows of {run.path} carry no labels; give a file of labels")
    table = pa.concat_tables(found)
    sources = table[SOURCE].to_pylist() if SOURCE in table.column_names else [None]
    return Labels(
        ids=table["id"].combine_chunks(),
        classes=table["label"].to_numpy().astype(np.int64),
        sources=sources if any(source is not None for source in sources) else None,
        unreadable=0,
    )
