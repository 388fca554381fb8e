"""Training a shared encoder."""
