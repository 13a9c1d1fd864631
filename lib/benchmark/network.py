"""Training steps and forward passes of this network against timm's, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from lib.benchmark.floor import Rates, floor_of, measure_rates
from lib.benchmark.rounds import Row, Work, compare, peer_module
from lib.config.keys import default_config, value_at
from lib.models.build import place
from lib.models.complexity import measure_model
from lib.models.folding import fold_batch_norms
from lib.models.hrnet import build_hrnet
from lib.models.padded import pad_widths, widen
from lib.runtime import device as devices
from lib.runtime.precision import Precision
from lib.training.optim import OptimizerOptions, build_optimizer

_NUM_CLASSES = 1000
_UNIT = "images/s"
_SGD = OptimizerOptions("sgd", weight_decay=1e-4)
GOALS = {
    ("train", "cpu"): 1.0,
    ("train", "cuda"): 1.3,  # over the faster of timm's two
    ("infer", "cpu"): 1.1,
    ("infer", "cuda"): 1.3,
}
GOAL_MEMORY = 0.85  # at most; of ours to theirs
FLOORS = ("train", "infer")
_STEPS_TO_SETTLE = 4  # CUDA graphs are warmed up in the first step and recorded in the next


@dataclass(frozen=True)
class Task:
    """What both sides compute."""

    arch: str
    device: torch.device
    precision: str
    batch: int
    image_size: int
    rounds: int
    memory_format: str = "auto"  # of ours and theirs: see TRAIN.MEMORY_FORMAT
    compile_mode: str = "no"  # of ours: see TRAIN.COMPILE
    width_multiple: int = 1  # of ours: see TRAIN.WIDTH_MULTIPLE

    @property
    def case(self) -> str:
        """The task in words."""
        return f"{self.arch}, {self.image_size}, batch {self.batch}, {self.precision}"

    def settings(self, usual: CfgNode | None = None) -> list[str]:
        """Return what of ours is not as in the configuration `usual` (None: the defaults).

        In the form of tools/train.py: KEY VALUE KEY VALUE ...
        """
        usual = default_config() if usual is None else usual
        ours = {
            "TRAIN.COMPILE": self.compile_mode,
            "TRAIN.MEMORY_FORMAT": self.memory_format,
            "TRAIN.WIDTH_MULTIPLE": self.width_multiple,
        }
        unusual = [key for key, value in ours.items() if value != value_at(usual, key)]
        return [word for key in unusual for word in (key, str(ours[key]))]


def measure_training(task: Task, *, compiled: bool) -> list[Row]:
    """Compare whole steps: forward, loss, backward, SGD with momentum."""
    return _rows("train", task, ours_training, training_step, compiled=compiled)


def measure_inference(task: Task, *, compiled: bool) -> list[Row]:
    """Compare forward passes in evaluation mode; ours with its batch norms folded."""
    return _rows("infer", task, _ours_inference, _inference, compiled=compiled)


def measure_memory(task: Task) -> list[Row]:
    """Compare the peak memory of a training step; nothing on the CPU, which has no such count.

    Of this row less is better, so its ratio is theirs to ours and more is better again.
    """
    peaks = []
    devices.forget_compiled()
    for make in (ours_training, _timms_training):
        step = make(task)
        for _ in range(_STEPS_TO_SETTLE):
            step()
        devices.reset_peak_memory(task.device)
        step()
        peaks.append(devices.peak_memory_mib(task.device))
        del step
    ours, theirs = peaks
    if ours is None or theirs is None:
        return []
    goal = 1 / GOAL_MEMORY
    remark = " ".join(task.settings())
    ratio = theirs / ours
    return [Row("memory", task.case, ours, theirs, ratio, "MiB", goal, "timm, eager", remark)]


def _rows(
    mode: str,
    task: Task,
    ours: Callable[[Task], Work],
    theirs: Callable[[nn.Module, Task], Work],
    *,
    compiled: bool,
) -> list[Row]:
    modes = ["no"]
    if compiled:
        modes.append("default" if task.compile_mode == "no" else task.compile_mode)
    devices.forget_compiled()
    our_work, weights = ours(task), ours_network(task).state_dict()
    rows = []
    for peer_mode in modes:
        peer = timms_network(task)
        peer.load_state_dict(weights)
        how = "eager" if peer_mode == "no" else f"torch.compile {peer_mode}"
        rows.append(
            compare(
                mode,
                task.case,
                ours=our_work,
                peer=theirs(devices.compiled(peer, task.device, peer_mode), task),
                num_items=task.batch,
                unit=_UNIT,
                rounds=task.rounds,
                goal=GOALS.get((mode, task.device.type)),
                peer_name=f"timm, {how}, channels_last",
                remark=" ".join(task.settings()),
            )
        )
    return rows


def ours_network(task: Task) -> nn.Module:
    """Return this project's network with random weights, the same each time, in place."""
    torch.manual_seed(0)
    network = build_hrnet(task.arch, _NUM_CLASSES)
    place(network, task.device, task.memory_format)
    return network


def timms_network(task: Task) -> nn.Module:
    """Return timm's network of that name with random weights, in place on the device."""
    network = peer_module("timm").create_model(timm_name(task.arch), num_classes=_NUM_CLASSES)
    place(network, task.device, task.memory_format)
    return network


def timm_name(arch: str) -> str:
    """Return timm's name of a network: only the first of the small ones is called otherwise."""
    return "hrnet_w18_small" if arch == "hrnet_w18_small_v1" else arch


def ours_training(task: Task) -> Work:
    """Return the training step of this project's network with the task's settings."""
    network = pad_widths(ours_network(task), task.width_multiple)
    return training_step(devices.compiled(network, task.device, task.compile_mode), task)


def _timms_training(task: Task) -> Work:
    return training_step(timms_network(task), task)


def training_step(network: nn.Module, task: Task) -> Work:
    """Return a function that does one whole step and waits for the device."""
    network.train()
    images, targets = synthetic_batch(task)
    precision = Precision(task.precision, task.device)
    optimizer = build_optimizer(network, _SGD, learning_rate=1e-4, device=task.device)

    def step() -> None:
        precision.clear_gradients(optimizer)
        with precision.autocast():
            logits = network(images)
        precision.backward(F.cross_entropy(logits.float(), targets), optimizer)
        precision.step(optimizer)
        devices.synchronize(task.device)

    return step


def _ours_inference(task: Task) -> Work:
    network = widen(fold_batch_norms(ours_network(task)), task.width_multiple)
    place(network, task.device, task.memory_format)
    return _inference(devices.compiled(network, task.device, task.compile_mode), task)


def _inference(network: nn.Module, task: Task) -> Work:
    images, _ = synthetic_batch(task)
    precision = Precision(task.precision, task.device)
    return partial(_forward, network.eval(), images, precision, task.device)


def _forward(
    network: nn.Module, images: torch.Tensor, precision: Precision, device: torch.device
) -> None:
    with torch.inference_mode(), precision.autocast():
        network(images)
    devices.synchronize(device)


def synthetic_batch(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images N x 3 x S x S (float32) and classes N (int64) of chance, on the device."""
    generator = torch.Generator().manual_seed(0)
    size = task.image_size
    images = torch.randn(task.batch, 3, size, size, generator=generator).to(task.device)
    targets = torch.randint(_NUM_CLASSES, (task.batch,), generator=generator)
    layout = devices.memory_format(task.device, task.memory_format)
    return images.to(memory_format=layout), targets.to(task.device)


def rates_of(task: Task) -> Rates:
    """Measure what the machine does at best in the task's precision."""
    return measure_rates(task.device, _dtype(task))


def floor_lines(task: Task, rows: Sequence[Row], rates: Rates) -> list[str]:
    """Return a line for each training and forward figure: what the machine could do at best."""
    measured = {row.mode: row.ours for row in rows if row.case == task.case and row.mode in FLOORS}
    if not measured:
        return []
    info = measure_model(task.arch, build_hrnet(task.arch), image_size=task.image_size)
    lines = []
    for mode, images_per_s in measured.items():
        floor = floor_of(info, rates, mode=mode, bytes_per_value=_dtype(task).itemsize)
        limit = "arithmetic" if floor.arithmetic_s > floor.traffic_s else "memory traffic"
        share = 100 * images_per_s / floor.images_per_s
        lines.append(
            f"{mode}, {task.arch}: {images_per_s:.4g} images/s, {share:.0f} % of the "
            f"{floor.images_per_s:.4g} that {limit} alone would take at the rates of a large "
            "matrix product and copy here: "
            f"{rates.multiply_adds_per_s / 1e9:.4g} G multiply-adds/s, "
            f"{rates.bytes_per_s / 1e9:.4g} GB/s"
        )
    return lines


def _dtype(task: Task) -> torch.dtype:
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(task.precision, torch.float32)
