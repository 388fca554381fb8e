"""Rows of the input become the shards of a run."""
