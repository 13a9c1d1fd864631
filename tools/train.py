"""Train a network: python tools/train.py DATA --cfg experiments/... [options] [KEY VALUE ...]"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.cli import ArgumentParser, run_script
from lib.config import default_run_folder
from lib.environment import read_environment
from lib.launch import Cluster, end_with_parent
from lib.run_folder import LOGS, PERFORMANCE

_KEYS = {
    "workers": ("WORKERS",),
    "bs": ("TRAIN.BATCH_SIZE_PER_GPU", "TEST.BATCH_SIZE_PER_GPU"),
    "lr": ("TRAIN.LR",),
    "train_epochs": ("TRAIN.END_EPOCH",),
    "seed": ("SEED",),
    "pretrained": ("MODEL.PRETRAINED",),
}
_OLD_SCRIPTS_STOP_STEP = 200


def main() -> int:
    """Parse the command line and train."""
    args = _parse()
    environment = read_environment()
    if environment.launched:
        end_with_parent()
    cluster = Cluster(args.cards, args.nproc, args.dn, args.addr, args.port, args.max_restarts)
    config = _common.configured(args, environment, _KEYS)
    folder = args.out or default_run_folder(config, args.cfg)
    if args.stop_step is not None:
        folder = folder / PERFORMANCE

    # They load torch, whose failure is explained.
    from lib.trainer import TrainRequest, fetch_pretrained, train

    request = TrainRequest(
        _common.data_path_of(args, config),
        folder,
        args.cfg.stem,
        resume=args.resume,
        auto_resume=args.auto_resume,
        stop_step=args.stop_step,
        profile_start_step=environment.profile_start_step if environment.profile else None,
    )
    if environment.ranks.local_rank == 0:
        fetch_pretrained(config, request)
    _common.run_on_cards(
        args,
        environment,
        cluster,
        log_dir=args.log_dir or folder / LOGS,
        work=partial(train, config, request),
    )
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(parser, out_help=f"run folder (default: {_common.RUN_FOLDER})")
    _common.add_cluster_options(parser)
    add = parser.add_argument
    add(
        "--lr",
        type=float,
        help="learning rate for one card, times the number of cards (default: the yaml's)",
    )
    add("--train_epochs", type=int, help="number of epochs (default: the yaml's)")
    add(
        "--seed",
        type=int,
        help="seed of initialisation, order and augmentation (default: the yaml's)",
    )
    add("--pretrained", help="weights to start from: a file, a name of weights.py, or an address")
    add("--resume", type=Path, help="checkpoint.pth.tar to continue")
    add("--auto_resume", action="store_true", help="continue the run folder's checkpoint if there")
    add(
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
