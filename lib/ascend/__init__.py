"""The way from an ONNX file to Ascend's .om: what ATC accepts, and the scripts that run it.

Needs onnx and numpy, neither torch nor CANN: a model is judged by what CANN documents.
"""

from lib.ascend.batches import check_inside
from lib.ascend.checks import (
    ACCEPTED,
    MAX_IR_VERSION,
    NOTE,
    OPSETS,
    PROBLEM,
    SAFE_OPSETS,
    Finding,
    ModelInput,
    check_batch_numbers,
    check_batches,
    check_model,
    model_input,
)
from lib.ascend.pictures import uint8_size
from lib.ascend.recipes import check_aipp, recipe_of
from lib.ascend.scripts import (
    FLOAT16_MODES,
    LEGACY_PRECISION_MODES,
    PRECISION_MODES,
    Conversion,
    aipp_config,
    atc_commands,
    atc_script,
    check_options,
    infer_script,
    write_scripts,
)

__all__ = [
    "ACCEPTED",
    "FLOAT16_MODES",
    "LEGACY_PRECISION_MODES",
    "MAX_IR_VERSION",
    "NOTE",
    "OPSETS",
    "PRECISION_MODES",
    "PROBLEM",
    "SAFE_OPSETS",
    "Conversion",
    "Finding",
    "ModelInput",
    "aipp_config",
    "atc_commands",
    "atc_script",
    "check_aipp",
    "check_batch_numbers",
    "check_batches",
    "check_inside",
    "check_model",
    "check_options",
    "infer_script",
    "model_input",
    "recipe_of",
    "uint8_size",
    "write_scripts",
]
