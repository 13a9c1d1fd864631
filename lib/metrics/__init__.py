"""Counts of an evaluation, and the predictions that they come from."""
