"""Judges: any causal language model, asked which response is better."""
