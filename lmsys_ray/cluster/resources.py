"""The resources of a cluster."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What the cluster has, in whole devices, and whether that can grow."""

    cpus: int
    gpus: int
    grows: bool = False
    """Whether nodes may join; they cannot join a local Ray."""
    starts_gpus: bool = False
    """Whether its autoscaler is known to start nodes with GPUs."""
