"""The kinds of ensemble members, one folder each."""
