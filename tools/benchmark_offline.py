"""Measure the offline half beside others: benchmark_offline.py [MODE ...] --data_path PICTURES"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import EXIT_OK, ArgumentParser, run_script, say
from lib.runtime.environment import num_cores

if TYPE_CHECKING:
    from lib.benchmark.rounds import Row

_REPO = Path(__file__).resolve().parent.parent
_W18 = _REPO / "experiments" / "cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
_MODES = ("preprocess", "infer", "score")
_MAX_PICTURES = 128  # of a large folder: more would only take longer


def main() -> int:
    """Measure what is asked for, print the table and write the JSON."""
    args = _parse()
    modes = args.modes or list(_MODES)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(_MODES)}")
    for name in ("rounds", "batch", "num_batches", "num_predictions"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)}: 1 or more is needed")
    if args.data_path is None and modes != ["score"]:
        raise ValueError("--data_path DIR is needed: a folder of pictures, or of class folders")

    from lib.benchmark.rounds import machine, markdown
    from lib.runtime.files import check_outputs, write_json

    pictures = args.data_path.glob("**/*") if args.data_path else ()
    check_outputs({"--json": args.json}, (args.cfg, args.checkpoint, *pictures))

    say(machine(num_cores()))
    rows: list[Row] = []
    for mode in modes:
        with tempfile.TemporaryDirectory(prefix="benchmark_", dir=args.scratch) as scratch:
            rows += _MEASURES[mode](args, Path(scratch))
        say(*markdown(rows).split("\n"))
    if args.json is not None:
        write_json([row.as_json() for row in rows], args.json)
    return EXIT_OK


def _preprocess(args: argparse.Namespace, scratch: Path) -> list[Row]:
    from lib.benchmark import preparing
    from lib.data.picture_files import find_sources

    sources = find_sources(args.data_path, leave_out=scratch)
    pictures = [Path(sources.full_path(stem)) for stem in sources.paths][:_MAX_PICTURES]
    return preparing.measure(pictures, scratch, crop=224, rounds=args.rounds)


def _infer(args: argparse.Namespace, scratch: Path) -> list[Row]:
    from lib.benchmark import serving
    from lib.export.quantize.pictures import calibration_pictures, spread

    calibration = calibration_pictures(args.calibration or args.data_path)
    models = serving.make_models(
        args.checkpoint,
        scratch,
        cfg=args.cfg,
        calibration=[picture.path for picture in spread(calibration, _MAX_PICTURES)],
        batch=args.batch,
    )
    rows = serving.measure_inference(models, args.data_path, args.rounds)
    whole = serving.measure_whole_run(
        models, args.data_path, scratch, num_batches=args.num_batches, rounds=args.rounds
    )
    return [*rows, whole]


def _score(args: argparse.Namespace, scratch: Path) -> list[Row]:
    from lib.benchmark import scoring

    return scoring.measure(scratch, _REPO, num_predictions=args.num_predictions, rounds=args.rounds)


_MEASURES: dict[str, Callable[[argparse.Namespace, Path], list[Row]]] = {
    "preprocess": _preprocess,
    "infer": _infer,
    "score": _score,
}


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("modes", nargs="*", metavar="MODE", help=f"{', '.join(_MODES)}; without any, all")
    add("--data_path", type=Path, help="folder of pictures, or of class folders")
    add("--cfg", type=Path, default=_W18, help="experiment yaml: the network")
    add("--checkpoint", help="its weights, file or name; without them random ones, as fast")
    add("--calibration", type=Path, help="pictures for int8's ranges; without it --data_path")
    add("--batch", type=int, default=16, help="images a batch")
    add("--rounds", type=int, default=5, help="measurements of each side, in turn")
    add("--num_batches", type=int, default=20, help="batches of a whole run")
    add("--num_predictions", type=int, default=50_000, help="prediction files to score")
    add("--scratch", type=Path, help="where to work, and clean up; default: the system's")
    add("--json", metavar="FILE", type=Path, help="also write the rows there")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
