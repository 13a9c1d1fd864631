"""Find the fastest way to train here: python tools/pick_speed.py [--minutes 5]"""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script, say
from lib.runtime.environment import num_cores

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from lib.benchmark.network import Task
    from lib.benchmark.picking import Outcome

_BATCHES = {"cpu": (16, 32)}
_ACCELERATOR_BATCHES = (64, 128, 256)


def main() -> int:
    """Try the ways out, print them and the fastest one."""
    args = _parse()
    if not args.minutes > 0:
        raise ValueError(f"--minutes {args.minutes:g}: more than 0 is needed")
    if any(batch < 1 for batch in args.batches or ()):
        raise ValueError(f"--batches {args.batches}: 1 or more each")

    from lib.benchmark import picking
    from lib.benchmark.network import Task
    from lib.benchmark.rounds import machine
    from lib.config.load import load_config
    from lib.config.overrides import repeats
    from lib.runtime.device import configure, describe, select_device

    for remark in repeats(args.overrides):
        say(f"[Warning] {remark}")
    config = load_config(args.cfg, args.overrides)
    device = select_device(args.device)
    configure(device, cudnn_benchmark=True, cudnn_deterministic=False)
    batches = args.batches or _BATCHES.get(device.type, _ACCELERATOR_BATCHES)
    task = Task(config.MODEL.NAME, device, "fp32", 1, config.MODEL.IMAGE_SIZE[0], 1)
    say(f"{machine(num_cores())}; {describe(device)}; {task.arch}, {task.image_size}")
    found = list(picking.ways(task, batches, with_compile=args.compile))
    found = [way for way in found if way.precision in (args.precisions or (way.precision,))]
    if not found:
        raise ValueError(f"--precisions {' '.join(args.precisions)}: none that {device.type} has")
    refusals = [_refusal(args, config, way) for way in found]
    candidates = [way for way, refusal in zip(found, refusals, strict=True) if not refusal]
    if not candidates:
        raise ValueError(refusals[0])
    outcomes = picking.try_out(
        candidates, budget_s=60 * args.minutes, on_outcome=partial(_say_outcome, config)
    )
    agreements = {
        precision: picking.agreement(task, precision)
        for precision in {outcome.way.precision for outcome in outcomes}
    }
    say(*picking.table(outcomes, agreements, config).split("\n"))
    num_left = len(candidates) - len(outcomes)
    if num_left:
        say(f"{num_left} of {len(candidates)} ways were not tried: --minutes was over")
    fastest = max(outcomes, key=lambda outcome: outcome.images_per_s)
    if fastest.failure:
        raise PartlyFailed(f"no way could be measured: {fastest.failure}")
    words = ["python", "tools/train.py", "DATA", "--cfg", str(args.cfg), *args.overrides]
    prefix = _deeper_queue(args, fastest)
    say(f"fastest: {prefix}{shlex.join(words)} {picking.arguments(fastest.way, config)}")
    return EXIT_OK


def _deeper_queue(args: argparse.Namespace, fastest: Outcome) -> str:
    """Return what to set before the command for torch_npu's deeper queue, where it is faster."""
    from lib.benchmark import task_queue

    way = fastest.way
    if not task_queue.is_worth_trying(way.device.type):
        return ""
    command = [sys.executable, str(Path(__file__).resolve()), *args.overrides]
    command += ["--cfg", str(args.cfg), "--device", "npu", "--minutes", str(args.minutes / 4)]
    command += ["--batches", str(way.batch), "--precisions", way.precision]
    return task_queue.setting_if_faster(command, fastest.images_per_s, print)


def _refusal(args: argparse.Namespace, config: CfgNode, way: Task) -> str:
    """Return why a way does not go with the other settings, SYNC_BN say; '' where it does."""
    from lib.config.load import load_config

    batch = ["TRAIN.BATCH_SIZE_PER_GPU", str(way.batch)]
    try:
        load_config(args.cfg, [*args.overrides, *batch, *way.settings(config)])
    except ValueError as error:
        return str(error)
    return ""


def _say_outcome(config: CfgNode, outcome: Outcome) -> None:
    from lib.benchmark import picking

    speed = outcome.failure or f"{outcome.images_per_s:.4g} images/s"
    say(f"{picking.arguments(outcome.way, config)}: {speed}")


def _parse() -> argparse.Namespace:
    from _common import W18_RECIPE

    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY VALUE", help="config keys to override")
    add("--cfg", type=Path, default=W18_RECIPE, help="experiment yaml: network and image size")
    add("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"), help="where")
    add("--minutes", type=float, default=5.0, help="time to spend, about")
    add("--batches", type=int, nargs="+", help="images a step to try (default: by the device)")
    add("--precisions", nargs="+", help="precisions to try (default: by the device)")
    add("--compile", action="store_true", help="also with torch.compile, which takes minutes a way")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
