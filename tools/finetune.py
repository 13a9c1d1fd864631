"""Adapt a network to your pictures: python tools/finetune.py MY_FOLDER --pretrained hrnet_w18"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import _common
import _init_paths
import _training
from tqdm import tqdm
from yacs.config import CfgNode

from lib.runtime.cli import ArgumentParser, run_script, say
from lib.runtime.environment import Environment

RECIPE = Path(_init_paths.ROOT) / "experiments" / "finetune.yaml"
_NONE = "none"  # --pretrained none: from scratch


def main() -> int:
    """Find out what the folder and the weights are, say it, and train."""
    args = _parse()
    environment = _training.begin(args)
    if args.pretrained == _NONE:
        args.pretrained = ""
    found, remarks = _find_out(args, environment)
    config = _common.configured(args, environment, _training.KEYS, found=found)
    request = _training.request_of(args, environment, config)
    introduce = partial(_introduce, config, request.data_path, remarks)
    _training.start_training(args, environment, config, request=request, introduce=introduce)
    return 0


def _find_out(
    args: argparse.Namespace, environment: Environment
) -> tuple[list[str], tuple[str, ...]]:
    """Return the config keys and values that folder, weights and checkpoint say, and remarks."""
    # Loads torch, whose failure is explained.
    from lib.training.finetuning.layout import folder_settings
    from lib.training.finetuning.network import network_settings, resumed_settings

    given = _common.overrides_of(args, environment, _training.KEYS)
    values = dict(zip(given[::2], given[1::2], strict=False))
    config = _common.configured(args, environment, _training.KEYS, quiet=True)
    folder = folder_settings(
        _common.data_path_of(args, config), config.DATASET, given=values.keys()
    )
    found = list(folder.settings)
    config = _common.configured(args, environment, _training.KEYS, found=found, quiet=True)
    checkpoint = _training.request_of(args, environment, config).checkpoint(config)
    if checkpoint is not None:
        found += resumed_settings(checkpoint)
        network = ["MODEL.NAME", args.arch] if args.arch else []
    else:
        network = network_settings(
            values.get("MODEL.PRETRAINED"),
            args.arch or values.get("MODEL.NAME"),
            default_pretrained=config.MODEL.PRETRAINED,
        )
    return [*found, *network], folder.remarks


def _introduce(config: CfgNode, data_path: Path | str, remarks: tuple[str, ...]) -> None:
    from lib.data.build import read_images
    from lib.training.finetuning.survey import survey

    for line in remarks:
        say(line)
    for line in survey(*read_images(config, data_path), config.DATASET, progress=_with_bar):
        say(line)


def _with_bar(paths: list[str]) -> Iterator[str]:
    yield from tqdm(paths, "looking at the files", leave=False, disable=not sys.stderr.isatty())


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(
        parser,
        out_help=f"run folder (default: {_common.RUN_FOLDER})",
        data="folder that holds a folder of pictures for each class, or train/ and val/ (valid/, "
        "test/ ...) with those class folders in them",
    )
    _common.add_cluster_options(parser)
    _training.add_training_options(parser)
    parser.add_argument(
        "--arch", help="one of the nine networks (default: that of the weights, else the yaml's)"
    )
    parser.set_defaults(cfg=RECIPE)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
