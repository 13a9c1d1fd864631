"""Make an ONNX model smaller: quantize_onnx.py --onnx X --output Y --calibration DIR"""

from __future__ import annotations

import argparse
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import EXIT_OK, ArgumentParser, needing, run_script, say


def main() -> int:
    """Write the model, compare it with the original, and refuse it where it lost too much."""
    args = _parse()
    with needing("pip install -r requirement_for_infer.txt"):
        from lib.export.quantize.run import ShrinkOptions, shrink
    options = ShrinkOptions(
        args.calibration,
        args.evaluate,
        args.num_calibration,
        args.max_drop,
        tuple(args.keep_float),
        args.fp16,
    )
    shrink(args.onnx, args.output, options, say)
    return EXIT_OK


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--onnx", type=Path, required=True, help="model of hrnet_pth2onnx.py, opset 13 or later")
    add("--output", type=Path, required=True, help="where to write the smaller model")
    add(
        "--calibration",
        type=Path,
        required=True,
        help="pictures to see the ranges on, in a folder or in class folders",
    )
    add("--num_calibration", type=int, default=128, help="how many of them see the ranges")
    add(
        "--evaluate",
        type=Path,
        help="pictures to compare on; without it all of --calibration, whatever --num_calibration "
        "says",
    )
    add("--max_drop", type=float, default=1.0, help="points of top-1 that may be lost")
    add("--keep_float", nargs="*", default=[], help="layers left in float: first classifier")
    add("--fp16", action="store_true", help="write float16 instead of int8")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
