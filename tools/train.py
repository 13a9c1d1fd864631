"""Train a network: python tools/train.py DATA --cfg experiments/... [options] [KEY VALUE ...]"""

from __future__ import annotations

import argparse

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path
import _training

from lib.runtime.cli import ArgumentParser, run_script


def main() -> int:
    """Parse the command line and train."""
    args = _parse()
    environment = _training.begin(args)
    config = _common.configured(args, environment, _training.KEYS)
    request = _training.request_of(args, environment, config)
    _training.start_training(args, environment, config, request=request)
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(parser, out_help=f"run folder (default: {_common.RUN_FOLDER})")
    _common.add_cluster_options(parser)
    _training.add_training_options(parser)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
