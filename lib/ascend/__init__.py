"""The way from an ONNX file to Ascend's .om: the scripts that run ATC and ais_bench."""
