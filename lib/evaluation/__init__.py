"""One exact evaluation of a network."""
