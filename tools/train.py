"""Train a network: python tools/train.py DATA --cfg experiments/... [options] [KEY VALUE ...]"""

from __future__ import annotations

import argparse

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path
import _training

from lib.cli import ArgumentParser, run_script
from lib.config import default_run_folder
from lib.run_folder import PERFORMANCE

_OLD_SCRIPTS_STOP_STEP = 200


def main() -> int:
    """Parse the command line and train."""
    args = _parse()
    environment = _training.begin(args)
    config = _common.configured(args, environment, _training.KEYS)
    folder = args.out or default_run_folder(config, args.cfg)
    if args.stop_step is not None:
        folder = folder / PERFORMANCE
    _training.start_training(args, environment, config, folder=folder, stop_step=args.stop_step)
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(parser, out_help=f"run folder (default: {_common.RUN_FOLDER})")
    _common.add_cluster_options(parser)
    _training.add_training_options(parser)
    parser.add_argument(
        "--stop_step",
        type=_stop_step,
        help="measure so many steps only: no evaluation, no weights; TRUE means 200",
    )
    return parser.parse_intermixed_args()


def _stop_step(text: str) -> int:
    if text.lower() == "true":
        return _OLD_SCRIPTS_STOP_STEP
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps") from None


if __name__ == "__main__":
    run_script(main)
