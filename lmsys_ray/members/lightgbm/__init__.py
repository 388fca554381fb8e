"""The LightGBM member: gradient-boosted trees on counts of words and characters, or on statistics of the texts."""
