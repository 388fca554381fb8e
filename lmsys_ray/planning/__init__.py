"""Foresees a run without starting one: what members read, what they need, and how long it takes."""
