"""From a checkpoint to an ONNX file that has been held against the network it came from."""

from lib.export.options import ATC, MODERN, PROFILES, ExportOptions, parse_batch
from lib.export.run import ExportReport, export_onnx
from lib.export.verify import TOLERANCE, Check, Pictures, read_pictures, verify_onnx

__all__ = [
    "ATC",
    "MODERN",
    "PROFILES",
    "TOLERANCE",
    "Check",
    "ExportOptions",
    "ExportReport",
    "Pictures",
    "export_onnx",
    "parse_batch",
    "read_pictures",
    "verify_onnx",
]
