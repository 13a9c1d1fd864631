"""Measurements of this project beside others, both sides in turn in one process.

`rounds` times and tells, the other modules each hold the cases of one subject.
"""
