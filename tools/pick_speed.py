"""Find the fastest way to train here: python tools/pick_speed.py [--minutes 5]"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script
from lib.environment import num_cores

if TYPE_CHECKING:
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
    from lib.config import load_config
    from lib.device import configure, describe, select_device
    from lib.models.hrnet import find_spec

    config = load_config(args.cfg, args.overrides)
    device = select_device(args.device)
    configure(device, cudnn_benchmark=True, cudnn_deterministic=False)
    batches = args.batches or _BATCHES.get(device.type, _ACCELERATOR_BATCHES)
    task = Task(config.MODEL.NAME, device, "fp32", 1, config.MODEL.IMAGE_SIZE[0], 1)
    print(f"{machine(num_cores())}; {describe(device)}; {task.arch}, {task.image_size}", flush=True)
    widths = find_spec(task.arch).stage4.widths
    candidates = list(
        picking.ways(
            device, batches, with_compile=args.compile, is_uneven=any(w % 8 for w in widths)
        )
    )
    outcomes = picking.try_out(
        task, candidates, budget_s=60 * args.minutes, on_outcome=_say_outcome
    )
    agreements = {
        precision: picking.agreement(task, precision)
        for precision in {outcome.way.precision for outcome in outcomes}
    }
    print(picking.table(outcomes, agreements))
    num_left = len(candidates) - len(outcomes)
    if num_left:
        print(f"{num_left} of {len(candidates)} ways were not tried: --minutes was over")
    fastest = max(outcomes, key=lambda outcome: outcome.images_per_s)
    if fastest.failure:
        raise PartlyFailed(f"no way could be measured: {fastest.failure}")
    print(f"fastest: python tools/train.py DATA --cfg {args.cfg} {fastest.way.arguments}")
    return EXIT_OK


def _say_outcome(outcome: Outcome) -> None:
    speed = outcome.failure or f"{outcome.images_per_s:.4g} images/s"
    print(f"{outcome.way.arguments}: {speed}", flush=True)


def _parse() -> argparse.Namespace:
    from _common import W18_RECIPE

    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY VALUE", help="config keys to override")
    add("--cfg", type=Path, default=W18_RECIPE, help="experiment yaml: network and image size")
    add("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"), help="where")
    add("--minutes", type=float, default=5.0, help="time to spend, about")
    add("--batches", type=int, nargs="+", help="images a step to try (default: by the device)")
    add("--compile", action="store_true", help="also with torch.compile, which takes minutes a way")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
