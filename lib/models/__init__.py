"""HRNet, and the way from a weight file to a network."""
