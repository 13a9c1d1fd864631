"""One training run: start, build, loop, checkpoint."""
