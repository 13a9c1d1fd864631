"""Data sets packed into tar shards: packing them, and reading them back."""
