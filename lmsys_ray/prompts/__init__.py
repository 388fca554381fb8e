"""Conversations become token ids."""
