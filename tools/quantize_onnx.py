"""Make an ONNX model smaller: quantize_onnx.py --onnx X --output Y --calibration DIR"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.cli import ArgumentParser, PartlyFailed, run_script


def main() -> int:
    """Write the model, compare it with the original, and refuse it where it lost too much."""
    args = _parse()

    from lib import quantize  # loads onnx, which takes a moment
    from lib.onnx_file import class_names_of, load_model

    names = class_names_of(load_model(args.onnx))
    pictures = quantize.find_pictures(args.evaluate or args.calibration, names)
    aside = args.output.with_name(f".{args.output.name}.tmp")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        if args.fp16:
            quantize.convert_fp16(args.onnx, aside)
        else:
            found = quantize.find_pictures(args.calibration, None)
            calibration = quantize.spread(found, args.num_calibration)
            quantize.quantize_int8(
                args.onnx, aside, calibration=calibration, keep_float=args.keep_float
            )
        cost = quantize.compare(args.onnx, aside, pictures)
        size_mb = aside.stat().st_size / 1e6
        _say(args, cost, size_mb)
        if cost.drop > args.max_drop:
            raise PartlyFailed(
                f"{cost.drop:.2f} points are lost where --max_drop {args.max_drop:g} is allowed; "
                f"{args.output} is not written: calibrate with more pictures, or keep layers in "
                "float with --keep_float first classifier"
            )
        os.replace(aside, args.output)
    finally:
        aside.unlink(missing_ok=True)
    return 0


def _say(args: argparse.Namespace, cost: quantize.Comparison, size_mb: float) -> None:  # noqa: F821
    print(f"{args.onnx.stat().st_size / 1e6:.1f} MB -> {size_mb:.1f} MB")
    print(
        f"same class for {cost.num_agreeing} of {cost.num_images} pictures "
        f"({cost.agreement:.2f} %), "
        f"largest logit difference {cost.max_abs_difference:.4f}"
    )
    if cost.num_correct_before is not None and cost.num_correct_after is not None:
        before, after = (
            100 * count / cost.num_images
            for count in (cost.num_correct_before, cost.num_correct_after)
        )
        print(f"top-1 before {before:.2f} %, after {after:.2f} % ({cost.num_images} pictures)")


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--onnx", type=Path, required=True, help="model of hrnet_pth2onnx.py, opset 13 or later")
    add("--output", type=Path, required=True, help="where to write the smaller model")
    add("--calibration", type=Path, required=True, help="pictures to see the ranges on")
    add("--num_calibration", type=int, default=128, help="how many of them")
    add("--evaluate", type=Path, help="pictures to compare on; without it the calibration's")
    add("--max_drop", type=float, default=1.0, help="points of top-1 that may be lost")
    add("--keep_float", nargs="*", default=[], help="layers left in float: first classifier")
    add("--fp16", action="store_true", help="write float16 instead of int8")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
