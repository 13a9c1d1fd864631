"""Smaller ONNX models: static int8 (QDQ, per-channel weights) and fp16, each with its cost stated.

Runs without torch. Calibration and comparison read pictures with the preprocessing that the model
itself records.
"""

from lib.quantize.comparison import Comparison, compare
from lib.quantize.convert import LAYERS_TO_KEEP, MIN_OPSET, convert_fp16, quantize_int8
from lib.quantize.pictures import Picture, calibration_pictures, comparison_pictures, spread
from lib.quantize.run import ShrinkOptions, shrink

__all__ = [
    "LAYERS_TO_KEEP",
    "MIN_OPSET",
    "Comparison",
    "Picture",
    "ShrinkOptions",
    "calibration_pictures",
    "compare",
    "comparison_pictures",
    "convert_fp16",
    "quantize_int8",
    "shrink",
    "spread",
]
