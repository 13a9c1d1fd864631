"""Which pictures a folder holds: `lib.pictures`, under the name that the offline steps use."""

from lib.pictures import Sources, find_sources

__all__ = ["Sources", "find_sources"]
