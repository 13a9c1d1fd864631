"""Adapt a network to your pictures: python tools/finetune.py MY_FOLDER --pretrained hrnet_w18"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import _common
import _init_paths
import _training
from tqdm import tqdm

from lib.cli import ArgumentParser, run_script
from lib.config import default_run_folder

if TYPE_CHECKING:
    from yacs.config import CfgNode

RECIPE = Path(_init_paths.ROOT) / "experiments" / "finetune.yaml"


def main() -> int:
    """Find out what the folder and the weights are, say it, and train."""
    args = _parse()
    environment = _training.begin(args)
    data_path = _common.given_data_path(args)
    if data_path is None:
        raise ValueError("no data path: give the folder that holds your class folders")

    from lib.finetuning import NONE, folder_settings, network_settings  # loads torch

    found = [*folder_settings(data_path), *network_settings(args.pretrained, args.arch)]
    if args.pretrained == NONE:
        args.pretrained = None  # said by `found`
    config = _common.configured(args, environment, _training.KEYS, found=found)
    folder = args.out or default_run_folder(config, args.cfg)
    if not environment.launched:
        _introduce(args, config)
    _training.start_training(args, environment, config, folder=folder)
    return 0


def _introduce(args: argparse.Namespace, config: CfgNode) -> None:
    from lib.assembly import read_images
    from lib.finetuning import survey

    images, val_images = read_images(config, _common.data_path_of(args, config))
    for line in survey(images, val_images, progress=_with_bar):
        print(line, flush=True)


def _with_bar(paths: list[str]) -> Iterator[str]:
    yield from tqdm(paths, "looking at the files", leave=False, disable=not sys.stderr.isatty())


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(parser, out_help=f"run folder (default: {_common.RUN_FOLDER})")
    _common.add_cluster_options(parser)
    _training.add_training_options(parser)
    parser.add_argument(
        "--arch", help="one of the nine networks (default: that of the weights, else the yaml's)"
    )
    parser.set_defaults(cfg=RECIPE)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
