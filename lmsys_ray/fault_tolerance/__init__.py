"""Processes that die or hang, and rows that kill them."""
