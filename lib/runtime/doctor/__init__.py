"""What this machine has for training, and the line that mends what does not fit."""
