"""Weight files: published ones, those of other projects, and our own."""
