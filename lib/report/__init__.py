"""What a run says, draws and leaves behind."""
