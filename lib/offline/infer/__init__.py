"""Inference with ONNX Runtime or OpenVINO, by ais_bench's command line."""
