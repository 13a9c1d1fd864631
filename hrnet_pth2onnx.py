"""Write a checkpoint as a verified ONNX file: --cfg YAML --input CKPT --output ONNX [KEY VALUE]"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from lib.cli import ArgumentParser, needing, run_script, say
from lib.files import check_outputs
from lib.run_folder import read_with

_RECIPES = Path(__file__).resolve().parent / "experiments"


def main() -> int:
    """Parse the command line and export."""
    args = _parse()
    with needing("pip install -r requirements.txt -r requirement_for_infer.txt"):
        from lib.config import load_config, repeats
        from lib.export import ExportOptions, export_onnx, parse_batch
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = load_config(args.cfg, args.overrides)
    for remark in (*repeats(args.overrides), *(warning.message for warning in caught)):
        say(f"[Warning] {remark}")
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
    report = export_onnx(config, args.input, args.output, options, verify_images=args.verify_images)
    lines = (
        f"weights: {report.loaded}",
        *report.checks,
        f"written: {report.onnx} and {report.receipt.name}",
    )
    say(*lines)
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY VALUE", help="config keys to override")
    w18 = _RECIPES / "cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    add("--cfg", type=Path, default=w18, help="experiment yaml: the network and its image size")
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
