"""Ensemble members: each turns conversations into probabilities of A preferred, B preferred, tie."""
