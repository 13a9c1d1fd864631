"""The network and the forms in which it is described."""
