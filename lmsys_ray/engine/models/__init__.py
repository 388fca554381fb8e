"""Decoders by architecture."""
