"""What the benchmark compares."""
