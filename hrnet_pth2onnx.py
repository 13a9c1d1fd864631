"""Write a checkpoint as a verified ONNX file: --input CKPT --output ONNX [--cfg Y] [KEY VALUE]"""

from __future__ import annotations

import argparse
from pathlib import Path

from lib.runtime.cli import ArgumentParser, needing, run_script, say
from lib.runtime.files import check_outputs
from lib.runtime.run_folder import read_with


def main() -> int:
    """Parse the command line and export."""
    args = _parse()
    with needing("pip install -r requirements.txt -r requirement_for_infer.txt"):
        from lib.export.options import ExportOptions, parse_batch
        from lib.export.run import export_onnx
    options = ExportOptions(
        args.profile,
        parse_batch(args.batch),
        opset=args.opset,
        fold_bn=args.fold_bn,
        no_resize=args.no_resize,
        simplify=args.simplify,
    )
    receipt = args.output.with_suffix(".receipt.json")
    outputs = {"--output": args.output, "the receipt": receipt}
    check_outputs(outputs, (*read_with(args.input), args.cfg))
    report = export_onnx(
        args.input,
        args.output,
        options,
        cfg=args.cfg,
        overrides=args.overrides,
        verify_images=args.verify_images,
        say=say,
    )
    lines = (
        f"weights: {report.loaded}",
        *map(str, report.checks),
        f"written: {report.onnx} and {report.receipt.name}",
    )
    say(*lines)
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY VALUE", help="config keys to override")
    add(
        "--cfg",
        type=Path,
        help="experiment yaml: the network and its image size (default: the config.yaml beside the "
        "weights, or what they record)",
    )
    add("--input", required=True, help="weights: a file, a name of tools/weights.py, or an address")
    add("--output", type=Path, required=True, help="the ONNX file; a .receipt.json comes beside it")
    add(
        "--profile",
        default="atc",
        choices=("atc", "modern"),
        help="atc: for Ascend's converter; modern: torch.export, opset 18 or later",
    )
    add("--batch", default="dynamic", help="a number of images, or dynamic")
    add("--opset", type=int, default=0, help="0: 11 for atc, 18 for modern")
    add("--fold_bn", action="store_true", help="fold batch norm into the convolutions first")
    add("--no_resize", action="store_true", help="upsampling as reshape and expand, exact")
    add("--simplify", action="store_true", help="simplify with onnxslim")
    add("--verify_images", type=Path, help="pictures to compare on, beside random images")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
