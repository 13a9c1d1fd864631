"""The way from a weight file to an ONNX file that has been held against the network."""
