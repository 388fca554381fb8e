"""Conversations, labels and the files that hold them."""
