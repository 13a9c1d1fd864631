"""Measurements of this project beside others, both sides in turn in one process."""
