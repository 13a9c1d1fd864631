"""Measure speed beside timm and torchvision: benchmark.py train infer loader [--data_path DIR]"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import _init_paths

from lib.config.keys import CHOICES
from lib.runtime.cli import EXIT_OK, ArgumentParser, run_script, say
from lib.runtime.environment import num_cores

if TYPE_CHECKING:
    import torch

    from lib.benchmark.network import Task
    from lib.benchmark.rounds import Row

_MODES = ("train", "infer", "loader", "memory")
_OF_A_NETWORK = ("train", "infer", "memory")
_NEEDS_PICTURES = ("loader",)
_SERVED_GOALS = {"float32": 1.5, "int8": 4.0}
_REPORT = "BENCHMARKS.md"
_MEASURED_WITH = (
    *("torch", "torchvision", "timm", "onnxruntime", "openvino"),
    *("pillow", "pillow-simd", "simplejpeg", "torch_npu"),
)
_MAX_PICTURES = 256  # of a large folder: more would only take longer


def main() -> int:
    """Measure what is asked for, print the table, and write what is to be written."""
    args = _parse()
    modes = list(_MODES) if args.all else args.modes
    _check(args, modes)

    from lib.benchmark.network import FLOORS, floor_lines, rates_of
    from lib.benchmark.rounds import machine, markdown, versions
    from lib.runtime.device import configure, describe, select_device
    from lib.runtime.files import check_outputs, write_atomically, write_json

    check_outputs({"--json": args.json}, _pictures(args))

    device = select_device(args.device)
    configure(device, cudnn_benchmark=True, cudnn_deterministic=False)
    tasks = _tasks(args, device)
    heading = f"{machine(num_cores())}; {describe(device)}; {versions(_MEASURED_WITH)}"
    say(heading)
    wants_floor = not args.no_floor and bool(set(modes) & set(FLOORS))
    before = rates_of(tasks[0]) if wants_floor else None
    rows: list[Row] = []
    for mode in modes:
        for task in tasks if mode in _OF_A_NETWORK else tasks[:1]:
            rows += _MEASURES[mode](args, task)
            say(*markdown(rows).split("\n"))
    lines = []
    if before is not None:
        rates = before.best(rates_of(tasks[0]))
        lines = [line for task in tasks for line in floor_lines(task, rows, rates)]
    say(*lines)
    if args.json is not None:
        write_json([row.as_json() for row in rows], args.json)
    if args.all:
        command = f"`python tools/benchmark.py {' '.join(sys.argv[1:])}`"
        text = "\n\n".join(["# Benchmarks", heading, command, markdown(rows), *lines])
        write_atomically(f"{text}\n".encode(), Path(_init_paths.ROOT) / _REPORT)
        say(f"written: {_REPORT}")
    return EXIT_OK


def _check(args: argparse.Namespace, modes: list[str]) -> None:
    from lib.models.hrnet import find_spec

    for arch in args.arch:
        find_spec(arch)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown or not modes:
        what = f"{unknown[0]!r} is none of" if unknown else "give one or more of"
        raise ValueError(f"{what} {', '.join(_MODES)}, or --all")
    if args.data_path is None and set(modes) & set(_NEEDS_PICTURES):
        raise ValueError("--data_path DIR is needed for loader: a folder of pictures")
    if args.batch < 0 or args.rounds < 1:
        raise ValueError(f"--batch {args.batch} --rounds {args.rounds}: 1 or more of each")
    if args.image_size < 32 or args.image_size % 32:
        raise ValueError(f"--image_size {args.image_size}: a multiple of 32 is needed")


def _tasks(args: argparse.Namespace, device: torch.device) -> list[Task]:
    """One for each network; on cuda ours has what is probably the fastest there."""
    from lib.benchmark.network import Task
    from lib.runtime.precision import Precision

    is_cuda = device.type == "cuda"
    precision = Precision(args.precision, device).name
    return [
        Task(
            arch,
            device,
            precision,
            args.batch or (16 if device.type == "cpu" else 256),
            args.image_size,
            args.rounds,
            compile_mode=args.ours_compile or ("reduce-overhead" if is_cuda else "no"),
            width_multiple=args.ours_multiple or (8 if is_cuda else 1),
        )
        for arch in args.arch
    ]


def _train(args: argparse.Namespace, task: Task) -> list[Row]:
    from lib.benchmark import network

    return network.measure_training(task, compiled=_compiles_timms(args, task))


def _infer(args: argparse.Namespace, task: Task) -> list[Row]:
    from lib.benchmark import network

    rows = network.measure_inference(task, compiled=_compiles_timms(args, task))
    if task.device.type == "cpu":
        with tempfile.TemporaryDirectory(prefix="benchmark_") as scratch:
            rows += _serving(task, _pictures(args), Path(scratch))
    return rows


def _compiles_timms(args: argparse.Namespace, task: Task) -> bool:
    return task.device.type == "cuda" or (args.compile and task.device.type == "cpu")


def _serving(task: Task, pictures: list[Path], scratch: Path) -> list[Row]:
    """The serving path against timm; int8 only where there are pictures to take its ranges from."""
    from lib.benchmark import network, serving
    from lib.offline.infer.session import installed_backends

    size = str([task.image_size, task.image_size])
    keys = ["MODEL.NAME", task.arch, "MODEL.IMAGE_SIZE", size]
    models = serving.make_models(
        None, scratch, overrides=keys, calibration=pictures, batch=task.batch
    )
    peer, name = network.timms_network(task), "timm, eager, channels_last"
    return serving.measure_against(
        models,
        peer,
        name,
        goals=_SERVED_GOALS,
        backends=installed_backends(),
        rounds=task.rounds,
    )


def _loader(args: argparse.Namespace, task: Task) -> list[Row]:
    from lib.benchmark import loading

    return loading.measure(_pictures(args), size=task.image_size, rounds=task.rounds)


def _memory(args: argparse.Namespace, task: Task) -> list[Row]:
    from lib.benchmark import network

    rows = network.measure_memory(task)
    if not rows:
        say("memory: the CPU keeps no count of it; take --device cuda or npu")
    return rows


def _pictures(args: argparse.Namespace) -> list[Path]:
    from lib.data.picture_files import find_sources

    if args.data_path is None:
        return []
    sources = find_sources(args.data_path)
    return [Path(sources.full_path(stem)) for stem in sources.paths][:_MAX_PICTURES]


_MEASURES: dict[str, Callable[[argparse.Namespace, Task], list[Row]]] = {
    "train": _train,
    "infer": _infer,
    "loader": _loader,
    "memory": _memory,
}


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("modes", nargs="*", metavar="MODE", help=f"{', '.join(_MODES)}")
    add("--all", action="store_true", help=f"all of them, and write {_REPORT}")
    add("--arch", nargs="+", default=["hrnet_w18"], help="of the nine networks")
    add("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"), help="where")
    precisions = CHOICES["TRAIN.PRECISION"]
    add("--precision", default="auto", choices=precisions, help="of both sides")
    add("--batch", type=int, default=0, help="images a step; 0: 16 on the cpu, else 256")
    add("--image_size", type=int, default=224, help="side of the images in pixels")
    add("--data_path", type=Path, help="folder of pictures, or of class folders")
    add("--rounds", type=int, default=5, help="measurements of each side, in turn")
    add("--compile", action="store_true", help="also timm's network compiled, on the cpu too")
    what = "TRAIN.COMPILE of ours (default: reduce-overhead on cuda, else no)"
    add("--ours_compile", choices=CHOICES["TRAIN.COMPILE"], help=what)
    what = "TRAIN.WIDTH_MULTIPLE of ours (default: 8 on cuda, else 1)"
    add("--ours_multiple", type=int, choices=CHOICES["TRAIN.WIDTH_MULTIPLE"], help=what)
    add("--no_floor", action="store_true", help="leave out what the machine could do at best")
    add("--json", metavar="FILE", type=Path, help="also write the rows there")
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
