"""The offline chain: folders in, folders out, with numpy and Pillow and without torch."""
