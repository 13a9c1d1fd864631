"""Run an ONNX file as ais_bench runs an .om: python tools/onnx_infer.py --model M --input DIR"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.offline.infer.ais_bench_options import (
    add_ais_bench_options,
    asked_batch,
    asked_shapes,
    switch,
    whole,
)
from lib.offline.infer.devices import run_on_devices
from lib.offline.infer.runner import InferRequest
from lib.offline.infer.session import BACKENDS, PRECISIONS
from lib.offline.infer.sources import PURE_DATA_TYPES, SizeMismatch
from lib.offline.prediction_files import FORMATS
from lib.offline.recipe_options import add_recipe_options, asked_recipe
from lib.runtime.cli import EXIT_OK, EXIT_USER_ERROR, ArgumentParser, PartlyFailed, run_script, say

_MAX_DEVICE = 255
_NUM_NAMED = 3


def main() -> int:
    """Run, print the closing lines, and return the exit code."""
    args = _parse()
    if args.left:
        say(f"[INFO] without meaning here: {', '.join(args.left)}")
    try:
        outcome = run_on_devices(_request(args), args.device, say)
    except SizeMismatch as error:
        say(f"[ERROR] {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except OSError as error:  # a full disk, say
        raise PartlyFailed(str(error)) from error
    for problem in outcome.problems:
        say(f"[WARN] {problem}")
    for line in outcome.lines:
        say(line)
    if outcome.problems:
        named = "; ".join(outcome.problems[:_NUM_NAMED])
        more = "; ..." if len(outcome.problems) > _NUM_NAMED else ""
        raise PartlyFailed(f"{len(outcome.problems)} without result: {named}{more}")
    return EXIT_OK


def _request(args: argparse.Namespace) -> InferRequest:
    if args.output_dirname is not None and args.output is None:
        raise ValueError("--output_dirname needs --output, the folder to make it in")
    folder = None
    if args.output is not None:
        folder = args.output / (args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S"))
    return InferRequest(
        model=args.model,
        input=args.input,
        input_images=args.input_images,
        output=folder,
        outfmt=args.outfmt,
        loop=args.loop,
        warmup_count=args.warmup_count,
        batch_size=asked_batch(args) or args.batchsize,
        dynamic_batch=asked_batch(args),
        pure_data_type=args.pure_data_type,
        output_batch_axis=args.output_batchsize_axis,
        display_all_summary=args.display_all_summary,
        limit=args.limit,
        backend=args.backend,
        precision=args.precision,
        recipe=asked_recipe(args),
        shapes=asked_shapes(args),
        arguments=tuple(sys.argv),
    )


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.allow_abbrev = False  # ais_bench has options that others begin with
    add = parser.add_argument
    add("--model", "-m", type=Path, required=True, help="ONNX file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input",
        "-i",
        help="folder of *.npy and *.bin, or files; a comma list has one a model input. "
        "Without it made-up data is computed",
    )
    source.add_argument(
        "--input_images", type=Path, help="folder of pictures, prepared as the model says"
    )
    add("--output", "-o", type=Path, help="folder for the results; without it none are saved")
    add("--output_dirname", help="name of the folder made there; without it the date and time")
    add("--outfmt", type=str.upper, default="BIN", choices=FORMATS, help="kind of files")
    add("--loop", "-l", type=_positive, default=1, help="how often each batch is computed")
    add("--warmup_count", type=whole, default=1, help="runs before times are taken")
    add("--batchsize", type=_positive, help="for the throughput; without it the model's batch")
    add("--device", "-d", type=_devices, default="0", help="card, or list 1,2: a process each")
    add("--dymBatch", type=whole, default=0, help="batch of a model that leaves it open")
    add("--pure_data_type", default="zero", choices=PURE_DATA_TYPES, help="the made-up data")
    add("--output_batchsize_axis", type=whole, default=0, help="the outputs' batch axis")
    what = "also the H2D and D2H times"
    add("--display_all_summary", type=switch, nargs="?", const=True, default=False, help=what)
    add("--limit", type=_positive, help="take only so many files, the first ones")
    add("--backend", default="onnxruntime", choices=BACKENDS, help="what computes")
    what = "what float32 is computed in; bf16 with openvino, on processors that have it"
    add("--precision", default="fp32", choices=PRECISIONS, help=what)
    add_recipe_options(parser)
    add_ais_bench_options(parser)
    return parser.parse_args()


def _positive(text: str) -> int:
    number = whole(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0 is no whole number >= 1")
    return number


def _devices(text: str) -> tuple[int, ...]:
    devices = tuple(whole(part) for part in text.split(","))
    if max(devices) > _MAX_DEVICE or len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"{text!r}: different numbers 0..{_MAX_DEVICE} are needed")
    return devices


if __name__ == "__main__":
    run_script(main)
