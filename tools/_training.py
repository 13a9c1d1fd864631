"""What train.py and finetune.py have in common: the options, and the start of the run."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import _common
from yacs.config import CfgNode

from lib.cli import ArgumentParser
from lib.environment import Environment, read_environment
from lib.launch import Cluster, end_with_parent
from lib.run_folder import LOGS

KEYS = {
    "workers": ("WORKERS",),
    "bs": ("TRAIN.BATCH_SIZE_PER_GPU", "TEST.BATCH_SIZE_PER_GPU"),
    "lr": ("TRAIN.LR",),
    "train_epochs": ("TRAIN.END_EPOCH",),
    "seed": ("SEED",),
    "pretrained": ("MODEL.PRETRAINED",),
}


def add_training_options(parser: ArgumentParser) -> None:
    """Add what sets a training run up, beside the options of `_common`."""
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


def begin(args: argparse.Namespace) -> Environment:
    """Return the environment of this process, which ends with its launcher if it has one.

    Raises ValueError for machines and cards that cannot be, before anything is read.
    """
    environment = read_environment()
    if environment.launched:
        end_with_parent()
    cluster_of(args)
    return environment


def cluster_of(args: argparse.Namespace) -> Cluster:
    """Return the machines and cards that the options ask for."""
    return Cluster(args.cards, args.nproc, args.dn, args.addr, args.port, args.max_restarts)


def start_training(
    args: argparse.Namespace,
    environment: Environment,
    config: CfgNode,
    *,
    folder: Path,
    stop_step: int | None = None,
) -> None:
    """Train into the run folder, on the cards that the options ask for.

    Raises what `lib.trainer.train` raises.
    """
    from lib.trainer import TrainRequest, fetch_pretrained, train  # torch's failure is explained

    request = TrainRequest(
        _common.data_path_of(args, config),
        folder,
        args.cfg.stem,
        resume=args.resume,
        auto_resume=args.auto_resume,
        stop_step=stop_step,
        profile_start_step=environment.profile_start_step if environment.profile else None,
    )
    if environment.ranks.local_rank == 0:
        fetch_pretrained(config, request)
    _common.run_on_cards(
        args,
        environment,
        cluster_of(args),
        log_dir=args.log_dir or folder / LOGS,
        work=partial(train, config, request),
    )
