"""The library: imported as `from lib.x import y`, with the root of the repository on sys.path."""
