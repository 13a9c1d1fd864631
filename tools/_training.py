"""What train.py and finetune.py have in common: the options, and the start of the run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import _common
from yacs.config import CfgNode

from lib.config.load import default_run_folder
from lib.runtime.cli import ArgumentParser, Stopped, whole_number
from lib.runtime.environment import Environment, read_environment
from lib.runtime.launch import Cluster, end_with_parent
from lib.runtime.run_folder import LOGS, PERFORMANCE

_OLD_SCRIPTS_STOP_STEP = 200
KEYS = {
    "workers": ("WORKERS",),
    "bs": ("TRAIN.BATCH_SIZE_PER_GPU", "TEST.BATCH_SIZE_PER_GPU"),
    "lr": ("TRAIN.LR",),
    "train_epochs": ("TRAIN.END_EPOCH",),
    "seed": ("SEED",),
    "pretrained": ("MODEL.PRETRAINED",),
    "modelDir": ("OUTPUT_DIR",),
}


def add_training_options(parser: ArgumentParser) -> None:
    """Add what sets a training run up, beside the options of `_common`."""
    add = parser.add_argument
    add(
        "--lr",
        type=float,
        help="learning rate for one card, times the number of cards (default: the yaml's)",
    )
    add("--train_epochs", "--epochs", type=whole_number, help="epochs (default: the yaml's)")
    add(
        "--seed",
        type=whole_number,
        help="seed of initialisation, order and augmentation (default: the yaml's)",
    )
    add(
        "--pretrained",
        help="weights to start from: a file, a run folder, a name of weights.py, an address",
    )
    add("--resume", type=Path, help="checkpoint.pth.tar to continue")
    add("--auto_resume", action="store_true", help="continue the run folder's checkpoint if there")
    add(
        "--stop_step",
        type=_stop_step,
        help="measure so many steps only: no evaluation, no weights; TRUE means 200",
    )


def _stop_step(text: str) -> int:
    if text.lower() == "true":
        return _OLD_SCRIPTS_STOP_STEP
    try:
        return whole_number(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps") from None


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


def request_of(args: argparse.Namespace, environment: Environment, config: CfgNode) -> TrainRequest:  # noqa: F821  imported with torch, below
    """Return what the options ask for, the run folder included. Raises as `data_path_of`."""
    from lib.training.start import TrainRequest  # torch's failure is explained

    folder = args.out or default_run_folder(config, args.cfg)
    return TrainRequest(
        _common.data_path_of(args, config),
        folder if args.stop_step is None else folder / PERFORMANCE,
        args.cfg.stem,
        resume=args.resume,
        auto_resume=args.auto_resume,
        stop_step=args.stop_step,
        profile_start_step=environment.profile_start_step if environment.profile else None,
        command=_common.command_line(),
    )


def start_training(
    args: argparse.Namespace,
    environment: Environment,
    config: CfgNode,
    *,
    request: TrainRequest,  # noqa: F821  imported with torch, below
    introduce: Callable[[], None] | None = None,
) -> None:
    """Train into the run folder, on the cards that the options ask for.

    `introduce` says once what there is to say before, when nothing is wrong with the request.
    Raises what `lib.training.run.train` raises.
    """
    from lib.training.run import train
    from lib.training.start import check_request, fetch_pretrained

    if environment.ranks.local_rank == 0:
        check_request(config, request)
        if introduce is not None and not environment.launched:
            introduce()
        fetch_pretrained(config, request)
    cluster = cluster_of(args)
    try:
        _common.run_on_cards(
            args,
            environment,
            cluster,
            log_dir=args.log_dir or request.folder / LOGS,
            work=partial(train, config, request),
        )
    except Stopped as stop:
        if environment.launched or cluster.num_processes == 1:
            raise
        raise SystemExit(stop.exit_code) from None  # the first rank has said what was saved
