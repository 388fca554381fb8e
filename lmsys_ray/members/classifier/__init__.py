"""The classifier: a transformer with a head of three labels."""
