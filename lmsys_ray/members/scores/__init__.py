"""The kind `scores`: probabilities or scores that were made elsewhere, found by id."""
