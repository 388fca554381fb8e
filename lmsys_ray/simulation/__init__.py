"""The job, with replicas that sleep instead of running a model."""
