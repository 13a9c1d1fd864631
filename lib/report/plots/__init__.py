"""Pictures of curves, confusion matrices and class sheets, by matplotlib."""
