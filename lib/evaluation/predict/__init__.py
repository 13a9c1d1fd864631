"""Answers for single pictures, with a contact sheet and activation maps."""
