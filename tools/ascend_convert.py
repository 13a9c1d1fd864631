"""Check an ONNX file against what Ascend's ATC accepts, and write the scripts for the .om.

Into --output come atc.sh (makes the .om files), infer.sh (ais_bench and the score) and, with
--aipp, aipp.cfg. Where atc is on the PATH it runs too. With --uint8_bins it only writes the input
files for an .om with AIPP.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths

from lib.cli import EXIT_OK, EXIT_USER_ERROR, ArgumentParser, PartlyFailed, needing, run_script

if TYPE_CHECKING:
    from lib.ascend import Conversion, Finding, ModelInput


def main() -> int:
    """Check, write, convert; return the exit code."""
    args = _parse()
    with needing("pip install -r requirement_for_infer.txt"):
        from lib import ascend
    if not args.uint8_bins:  # before the table of the model, which is long
        _check_request(args)
    if _print_findings(ascend.check_model(args.onnx)):
        return EXIT_USER_ERROR
    image = ascend.model_input(args.onnx)
    if args.uint8_bins:
        _write_uint8_bins(*args.uint8_bins, side=image.side)
        return EXIT_OK
    if _print_findings([ascend.check_batches(image, args.batch, dynamic=args.dynamic_batch)]):
        return EXIT_USER_ERROR
    _convert(_plan(args, image))
    return EXIT_OK


def _check_request(args: argparse.Namespace) -> None:
    from lib.ascend import check_batch_numbers, check_options

    if args.soc_version is None:
        raise ValueError("--soc_version is needed, such as Ascend910A; npu-smi info shows the name")
    check_options(args.soc_version, args.precision_mode)
    check_batch_numbers(args.batch, dynamic=args.dynamic_batch)


def _write_uint8_bins(source: Path, target: Path, *, side: int) -> None:
    from lib.ascend import uint8_size
    from lib.offline.uint8_bins import write_uint8_bins

    report = write_uint8_bins(source, target, side=side)
    print(f"{report.num_in_all} input files in {target}: uint8, {uint8_size(side)} pixels")
    for warning in report.warnings:
        print(f"[Warning] {warning}", file=sys.stderr)


def _plan(args: argparse.Namespace, image: ModelInput) -> Conversion:
    from lib.ascend import Conversion

    folder = args.output or args.onnx.with_name(f"{args.onnx.stem}_ascend")
    return Conversion(
        args.onnx.resolve(),
        folder.resolve(),
        image,
        args.soc_version,
        args.batch,
        dynamic=args.dynamic_batch,
        aipp=args.aipp,
        precision_mode=args.precision_mode,
    )


def _print_findings(findings: list[Finding]) -> bool:
    """Print a row a finding, what is wrong on stderr; return whether something is."""
    from lib.ascend import ACCEPTED, PROBLEM

    for row in findings:
        if row.verdict != PROBLEM:
            said = f": {row.advice}" if row.advice else ""
            print(f"[{row.verdict}] {row.subject}: {row.found} ({ACCEPTED[row.subject]}){said}")
    sys.stdout.flush()
    problems = [row for row in findings if row.verdict == PROBLEM]
    for row in problems:
        accepted = ACCEPTED[row.subject]
        line = f"[Error] {row.subject}: {row.found}; accepted: {accepted}. {row.advice}"
        print(line, file=sys.stderr, flush=True)
    return bool(problems)


def _convert(plan: Conversion) -> None:
    """Write the scripts, and run atc where it is."""
    from lib.ascend import uint8_size, write_scripts

    written = write_scripts(plan, Path(_init_paths.ROOT))
    print(f"written to {plan.folder}: {', '.join(written)}")
    if plan.aipp:
        size = uint8_size(plan.image.side)
        print(f"with AIPP the .om's input is uint8, NHWC, N x {size} x {size} x 3: see infer.sh")
    if shutil.which("atc") is None:
        print("atc is not on the PATH here: run `bash atc.sh` in that folder where CANN is")
        return
    print("atc runs", flush=True)
    done = subprocess.run(["bash", str(written["atc.sh"])], check=False)
    if done.returncode:
        raise PartlyFailed(f"the scripts are written, but atc failed (exit {done.returncode})")


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list such as 1,4,8") from None


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--onnx", type=Path, required=True, help="the model, from hrnet_pth2onnx.py")
    add("--soc_version", help="the chip as ATC names it, such as Ascend910A")
    add("--batch", type=_batches, default="1,4,8,16,32,64", help="batches, an .om each")
    add("--dynamic_batch", action="store_true", help="one .om that takes each of --batch")
    add("--aipp", action="store_true", help="crop and normalise inside the .om (uint8 input)")
    add("--precision_mode", help="fp16 (ATC's default), origin, mixed_float16, ...")
    add("--output", type=Path, help="folder; without it <onnx without suffix>_ascend beside it")
    add(
        "--uint8_bins",
        type=Path,
        nargs=2,
        metavar=("PICTURES", "BINS"),
        help="write the input files for an .om with AIPP, and stop",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
