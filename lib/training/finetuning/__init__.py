"""What fine-tuning finds out by itself of a folder, of weights and of pictures."""
