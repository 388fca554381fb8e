"""How much a member's device had to compute, counted where it is planned."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass
class Usage:
    """Sums over micro-batches: `tokens` of all rows, and `slots` computed for them, padding included."""

    rows: int = 0
    tokens: int = 0
    slots: int = 0
    shared: int = 0
    """Tokens that were not computed again because another row begins with the same ones."""
    micro_batches: int = 0
    room: int = 0
    """Slots that the token budgets of the micro-batches allowed."""

    @property
    def padding_share(self) -> float:
        """The share of the slots that held no token."""
        return 1 - (self.tokens - self.shared) / self.slots if self.slots else 0.0

    @property
    def filled_share(self) -> float:
        """The efficiency of packing: slots over what the token budgets of the micro-batches allowed."""
        return self.slots / self.room if self.room else 0.0

    @property
    def shared_share(self) -> float:
        """The share of the tokens that were computed once for several rows."""
        return self.shared / self.tokens if self.tokens else 0.0

    def add(self, lengths: np.ndarray, slots: int, budget: int, shared: int = 0) -> None:
        """Counts one micro-batch of rows of `lengths` tokens, `shared` of which were computed for another row."""
        own = Usage(len(lengths), int(lengths.sum()), slots, shared, 1, max(slots, budget))
        self.include(own)

    def include(self, other: "Usage") -> None:
        """Adds the counts of `other`."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
