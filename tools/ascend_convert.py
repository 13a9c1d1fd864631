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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths

from lib.export.onnx_metadata import load_model
from lib.runtime.cli import (
    EXIT_OK,
    EXIT_USER_ERROR,
    ArgumentParser,
    PartlyFailed,
    needing,
    run_script,
    say,
)
from lib.runtime.text import one_line

if TYPE_CHECKING:
    from lib.ascend.scripts import Conversion
    from lib.config.recipe import Recipe
    from lib.export.atc_rules import Finding, ModelInput

_BEST_ON_310P = 16


def main() -> int:
    """Check, write, convert; return the exit code."""
    args = _parse()
    with needing("pip install -r requirement_for_infer.txt"):
        from lib.ascend.aipp import check_aipp
        from lib.ascend.batches import check_inside
        from lib.config.recipe import Recipe
        from lib.export.atc_rules import (
            PROBLEM,
            check_batches,
            check_model,
            load_graph,
            model_input,
        )
        from lib.export.onnx_metadata import RECIPE_KEY, metadata_of, parse_recipe
    if not args.uint8_bins:  # before the table of the model, which is long
        _check_request(args)
    findings = check_model(args.onnx)
    _stop_at_problems(findings, force=args.force)
    if any(row.verdict == PROBLEM for row in findings if row.subject == "input"):
        raise ValueError("--force: without one input of square pictures there is nothing to do")
    image = model_input(args.onnx)
    recorded = metadata_of(load_graph(args.onnx)).get(RECIPE_KEY)
    recipe = parse_recipe(recorded, args.onnx) or Recipe.for_crop(image.side)
    for_aipp = [check_aipp(recipe)] if args.aipp or args.uint8_bins else []
    if args.uint8_bins:
        _stop_at_problems(for_aipp, force=args.force)
        _write_uint8_bins(*args.uint8_bins, side=image.side)
        return EXIT_OK
    batches = check_batches(image, args.batch, dynamic=args.dynamic_batch)
    inside = check_inside(args.onnx, args.batch) if image.batch is None else None
    precision = _precision(args, recipe)
    _stop_at_problems([*for_aipp, inside or batches, precision], force=args.force)
    _convert(_plan(args, image, recipe))
    return EXIT_OK


def _stop_at_problems(findings: Sequence[Finding | None], *, force: bool) -> None:
    """Print the findings and leave where one is a problem, unless told to go on."""
    if _print_findings([row for row in findings if row is not None]) and not force:
        raise SystemExit(EXIT_USER_ERROR)


def _precision(args: argparse.Namespace, recipe: Recipe) -> Finding:
    """Look for what float16 can't hold, with some pictures: given, or made up."""
    from lib.ascend.scripts import WIDER_MODES
    from lib.export.atc_rules import NOTE, PROBLEM, Finding

    if args.precision_mode in WIDER_MODES:
        return Finding("precision", args.precision_mode)
    try:
        from lib.export.quantize.half import excess_of
        from lib.export.quantize.looking import pictures_to_look_with

        images = pictures_to_look_with(args.pictures, recipe)
        excess = excess_of(load_model(args.onnx), images)
    except Exception as error:  # ONNX Runtime's have no common base
        if args.pictures is not None:
            raise ValueError(
                f"--pictures {args.pictures}: {one_line(error, with_type=True)}"
            ) from None
        return Finding("precision", "not looked at", NOTE, one_line(error, with_type=True))
    if excess:
        advice = (
            "it becomes infinite: take --precision_mode origin, or show with --pictures that true "
            "pictures stay below"
        )
        return Finding("precision", excess, PROBLEM, advice)
    source = args.pictures or "made-up pictures; --pictures DIR takes true ones"
    return Finding("precision", f"within it for {source}")


def _check_request(args: argparse.Namespace) -> None:
    from lib.ascend.scripts import check_options
    from lib.export.atc_rules import check_batch_numbers

    if args.soc_version is None:
        raise ValueError("--soc_version is needed, such as Ascend910A; npu-smi info shows the name")
    check_options(args.soc_version, args.precision_mode)
    check_batch_numbers(args.batch, dynamic=args.dynamic_batch)


def _write_uint8_bins(source: Path, target: Path, *, side: int) -> None:
    from lib.ascend.aipp import uint8_size
    from lib.ascend.uint8_bins import write_uint8_bins

    report = write_uint8_bins(source, target, side=side)
    say(f"{report.num_in_all} input files in {target}: uint8, {uint8_size(side)} pixels")
    for warning in report.warnings:
        say(f"[Warning] {warning}", file=sys.stderr)


def _plan(args: argparse.Namespace, image: ModelInput, recipe: Recipe) -> Conversion:
    from lib.ascend.scripts import Conversion

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
        recipe=recipe,
    )


def _print_findings(findings: list[Finding]) -> bool:
    """Print a row a finding, what is wrong on stderr; return whether something is."""
    from lib.export.atc_rules import ACCEPTED, PROBLEM

    for row in findings:
        if row.verdict != PROBLEM:
            said = f": {row.advice}" if row.advice else ""
            say(f"[{row.verdict}] {row.subject}: {row.found} ({ACCEPTED[row.subject]}){said}")
    sys.stdout.flush()
    problems = [row for row in findings if row.verdict == PROBLEM]
    for row in problems:
        accepted = ACCEPTED[row.subject]
        line = f"[Error] {row.subject}: {row.found}; accepted: {accepted}. {row.advice}"
        say(line, file=sys.stderr)
    return bool(problems)


def _convert(plan: Conversion) -> None:
    """Write the scripts, and run atc where it is."""
    from lib.ascend.aipp import uint8_size
    from lib.ascend.scripts import write_scripts

    written = write_scripts(plan, Path(_init_paths.ROOT))
    if plan.soc_version.startswith("Ascend310P") and _BEST_ON_310P not in plan.batches:
        say(f"on 310P HRNet's best published batch is {_BEST_ON_310P}: see --batch")
    say(f"written to {plan.folder}: {', '.join(written)}")
    if plan.aipp:
        size = uint8_size(plan.image.side)
        say(f"with AIPP the .om's input is uint8, NHWC, N x {size} x {size} x 3: see infer.sh")
    if shutil.which("atc") is None:
        say("atc is not on the PATH here: run `bash atc.sh` in that folder where CANN is")
        return
    say("atc runs")
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
    add(
        "--pictures",
        type=Path,
        help="pictures to look with for what float16 can't hold; without it some are made up",
    )
    add("--force", action="store_true", help="go on in spite of errors in the table")
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
