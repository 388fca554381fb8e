"""Decoders on packed rows."""
