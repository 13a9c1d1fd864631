"""Pictures: lists of them, decoding, augmentation, preprocessing and loading."""
