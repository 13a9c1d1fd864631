"""Command-line pieces that several entry scripts share."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path
from yacs.config import CfgNode

from lib.config.keys import CHOICES
from lib.config.load import load_config
from lib.config.overrides import repeats
from lib.runtime.cli import ArgumentParser, say, whole_number
from lib.runtime.environment import Environment, RankInfo, read_cann_variables
from lib.runtime.files import is_url
from lib.runtime.launch import Cluster, let_the_first_rank_speak, run_under_torchrun
from lib.runtime.text import printable

_REPO = Path(__file__).resolve().parent.parent
W18_RECIPE = _REPO / "experiments" / "cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
_SECRETS = re.compile(r"(?<=://)[^/@\s]*@|(?<=\?)\S+")  # of an address: password, signature
RUN_FOLDER = "OUTPUT_DIR/<DATASET.DATASET>/<yaml's name>"
_KEY_AND_VALUE = re.compile(r"[A-Z]+(\.[A-Z_]+)+=")
_DATA = "folder with train/ and val/"


def add_run_options(
    parser: ArgumentParser,
    *,
    out_help: str,
    data: str = _DATA,
    cfg: Path | None = W18_RECIPE,
    cfg_help: str = "experiment yaml",
) -> None:
    """Add what training and evaluation have in common; `data` says what the data path may be."""
    add = parser.add_argument
    add(
        "data_path",
        nargs="?",
        help=f"{data}, or a packed data set's folder or http address; without it the yaml's "
        "DATASET.ROOT",
    )
    add("overrides", nargs="*", metavar="KEY VALUE", help="config keys to override")
    add(
        "--data_path",
        "--dataDir",
        dest="data_option",
        metavar="DATA_PATH",
        help="another way to give the data_path; a DATASET.ROOT of the yaml may lie in it",
    )
    add("--cfg", type=Path, default=cfg, help=cfg_help)
    add(
        "--device",
        default="auto",
        choices=("auto", "npu", "cuda", "cpu"),
        help="auto: an npu, else cuda, else the cpu",
    )
    add(
        "--device_id",
        type=whole_number,
        default=0,
        help="which card, on one card; ASCEND_DEVICE_ID wins",
    )
    add("--cards", type=whole_number, default=1, help="processes on this machine, one a card")
    add(
        "--workers",
        type=whole_number,
        help="data-loading processes a card; -1: cores / cards (default: the yaml's)",
    )
    add(
        "--bs",
        "--batch_size",
        type=whole_number,
        help="images a card and step (default: the yaml's)",
    )
    _add_precision_options(parser)
    add("--out", type=Path, help=out_help)
    add("--modelDir", help="OUTPUT_DIR, by its name in the official scripts")
    add(
        "--log_dir",
        "--logDir",
        type=Path,
        help="where other ranks log (default: logs/ in that folder)",
    )


def _add_precision_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--hf32", action="store_true", help="hf32 (tf32 on cuda) instead of mixed precision")
    add("--fp32", action="store_true", help="full float32 instead of mixed precision")
    add(
        "--precision",
        choices=CHOICES["TRAIN.PRECISION"],
        help="auto: fp16 on npu and cuda, fp32 on the cpu (default: the yaml's)",
    )


def add_cluster_options(parser: ArgumentParser) -> None:
    """Add what runs on several machines need."""
    add = parser.add_argument
    add("--nproc", type=whole_number, default=1, help="number of nodes (machines) started")
    add("--dn", type=whole_number, default=0, help="rank of this node, 0..nproc-1")
    add("--addr", default="127.0.0.1", help="address of the master node")
    add(
        "--port",
        type=whole_number,
        default=29500,
        help="port there; a single node takes a free one",
    )
    add(
        "--max_restarts",
        type=whole_number,
        default=0,
        help="how often torchrun restarts failed processes",
    )


def configured(
    args: argparse.Namespace,
    environment: Environment,
    keys: Mapping[str, tuple[str, ...]],
    *,
    found: Sequence[str] = (),
    quiet: bool = False,
) -> CfgNode:
    """Return the configuration of a command line: yaml, then options, then KEY VALUE overrides.

    `keys` maps an option's name to the config keys that it sets when given. `found` are keys and
    values that come before the options: what a script has found out by itself. `quiet`: without
    the warnings, where the same command line is read once more.
    """
    given = overrides_of(args, environment, keys)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = load_config(args.cfg, [*found, *given])
    if quiet:
        return config
    remarks = [*repeats(_positional(args)[1]), *(str(warning.message) for warning in caught)]
    one_process = args.cards * getattr(args, "nproc", 1) == 1
    if environment.ranks.is_main and (environment.launched or one_process):
        for remark in remarks:
            say(f"[Warning] {remark}")
    return config


def overrides_of(
    args: argparse.Namespace, environment: Environment, keys: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Return the config keys that a command line gives, each with its value; see `configured`."""
    overrides = []
    for option, names in keys.items():
        value = getattr(args, option)
        if value is not None:
            overrides += [word for name in names for word in (name, str(value))]
    precision = _asked_precision(args, environment)
    if precision is not None:
        overrides += ["TRAIN.PRECISION", precision]
    return overrides + _positional(args)[1]


def command_line() -> str:
    """Return what was typed, for the records of a run: its addresses without their secrets."""
    words = [_SECRETS.sub("...", word) if "://" in word else word for word in sys.argv]
    return shlex.join(["python", *words])


def _positional(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """Return (data path, overrides); where no path was given, the first KEY stands in its place.

    Raises ValueError for a path that is given in both ways.
    """
    words = [] if args.data_path is None else [args.data_path, *args.overrides]
    if args.data_option is None:
        is_odd = len(words) % 2 == 1 and not _KEY_AND_VALUE.match(words[0])
        is_path = is_odd or _looks_like_a_path(*words[:1])
        return (words[0], words[1:]) if words and is_path else (None, words)
    if len(words) % 2 and _looks_like_a_path(words[0]):
        raise ValueError(
            f"the data path is given twice: {words[0]!r}, and --data_path {args.data_option!r}"
        )
    return args.data_option, words


def _looks_like_a_path(word: str = "") -> bool:
    return "/" in word or os.path.exists(word)


def _asked_precision(args: argparse.Namespace, environment: Environment) -> str | None:
    """Return the precision that options or environment ask for; None where they are silent."""
    asked = {args.precision} - {None}
    asked |= {"hf32"} if args.hf32 or environment.allow_hf32 else set()
    asked |= {"fp32"} if args.fp32 or environment.allow_fp32 else set()
    if len(asked) > 1:
        raise ValueError(
            f"{' and '.join(sorted(asked))} are asked for together (--hf32, --fp32, --precision, "
            "ALLOW_HF32, ALLOW_FP32): choose one"
        )
    return asked.pop() if asked else None


def data_path_of(args: argparse.Namespace, config: CfgNode) -> Path | str:
    """Return the data folder, or address: the command line's, else DATASET.ROOT.

    Neither is needed where the yaml has the parts' whole paths. Raises ValueError where nothing
    says, FileNotFoundError where it is not there.
    """
    given, data = _positional(args)[0], config.DATASET
    path = given or data.ROOT
    if path and is_url(path):
        return path
    parts = [Path(part) for part in (data.TRAIN_SET, data.TEST_SET)]
    if not given and all(part.is_absolute() for part in parts):
        return parts[0].parent
    if not path:
        raise ValueError("no data path: give the folder that holds train/ and val/")
    if not Path(path).is_dir():
        raise FileNotFoundError(f"no such data folder: {printable(path)}")
    inner = Path(path, data.ROOT)  # as the official tools/train.py takes its --dataDir
    if args.data_option and not (Path(path) / parts[0]).is_dir() and (inner / parts[0]).is_dir():
        return inner
    return Path(path)


def run_on_cards(
    args: argparse.Namespace,
    environment: Environment,
    cluster: Cluster,
    *,
    log_dir: Path,
    work: Callable[[Processes], None],  # noqa: F821  imported with torch, below
) -> None:
    """Do `work` in this process, or start it once a card under torchrun where there are several.

    Raises ValueError for a device that is not there.
    """
    from lib.runtime import device as devices
    from lib.runtime.distributed import Processes
    from lib.runtime.run_folder import RANK_LOG, redirect_output

    ranks = environment.ranks
    if cluster.num_processes > 1 and not environment.launched:
        available = devices.num_devices(args.device)
        if available is not None and cluster.num_cards > available:
            raise ValueError(f"--cards {cluster.num_cards}: this machine has {available}")
        script = Path(sys.argv[0]).resolve()
        run_under_torchrun(script, sys.argv[1:], cluster, log_dir=log_dir)
        return
    if ranks.local_rank > 0:
        redirect_output(log_dir / RANK_LOG.format(ranks.rank), append=ranks.restart_count > 0)
    index, source = _card(args, environment)
    with let_the_first_rank_speak(ranks.local_rank):
        device = devices.select_device(args.device, index, index_source=source)
    _announce(ranks, device, asked=args.device)
    # Within the group: who leaves it ends the others' exchanges, and with them their own words.
    with Processes(ranks, device) as processes, let_the_first_rank_speak(ranks.local_rank):
        work(processes)


def _announce(ranks: RankInfo, device: torch.device, *, asked: str) -> None:  # noqa: F821
    """Say where another rank computes, or that the CPU was taken though CANN is there."""
    if not ranks.is_main:
        say(f"rank {ranks.rank} of {ranks.world_size} on {device}; rank 0 has the log")
    elif asked == "auto" and device.type == "cpu" and read_cann_variables().home:
        say(
            "[Warning] CANN is set up, but torch sees no NPU: this runs on the CPU; python "
            "tools/doctor.py says why",
        )


def _card(args: argparse.Namespace, environment: Environment) -> tuple[int, str]:
    """Return the index of this process's card, and what gave it."""
    if environment.ranks.world_size > 1:
        return environment.ranks.local_rank, "LOCAL_RANK="
    if environment.ascend_device_id is not None:
        # The launchers hand their --device_id over in it.
        return environment.ascend_device_id, "--device_id by ASCEND_DEVICE_ID="
    return args.device_id, "--device_id "
