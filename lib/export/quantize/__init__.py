"""ONNX files in int8 and float16, and how far they are from the one they come from."""
