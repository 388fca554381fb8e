"""The workers of several passes: they hold the scorer of the member that is due, so that members share processes."""

import threading
from collections.abc import Mapping

import pyarrow as pa

from lmsys_ray.scoring.shard_worker import PassSpec, ShardScorer, encode_shard

_HELD = 2
"""Scorers that an actor holds at once: two members are due where one's last shards meet the next one's first."""


def encode_item(batch: pa.Table, specs: Mapping[str, PassSpec]) -> pa.Table:
    """Reads and encodes the shard of a batch for its member, as `encode_shard` does."""
    encoded = encode_shard(batch, specs[batch["member"][0].as_py()])
    return encoded.append_column("member", batch["member"])


class ShardScorers:
    """An actor of the pool: the scorers of its members, each made when its first shard comes.

    The first member's is made at once, so that its model loads before there is work.
    """

    def __init__(self, specs: Mapping[str, PassSpec]) -> None:
        self._specs = specs
        self._held: dict[str, ShardScorer] = {}
        self._making = threading.Lock()
        self._scorer(next(iter(specs)))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Scores the shard that `batch` names or holds for its member; returns a `ScoredShard` as a table."""
        return self._scorer(batch["member"][0].as_py())(batch)

    def _scorer(self, name: str) -> ShardScorer:
        with self._making:
            if name not in self._held:
                for earlier in [*self._held][: 1 - _HELD]:
                    del self._held[earlier]
                self._held[name] = ShardScorer(self._specs[name])
            return self._held[name]
