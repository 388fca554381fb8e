"""What members scored becomes one submission."""
