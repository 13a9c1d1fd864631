"""Everything that a training run computes with, built from its configuration."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from lib.config.recipe import eval_recipe
from lib.config.schedules import Schedule, run_schedule
from lib.config.unused import unused_settings
from lib.data.build import (
    agree_on_decoder,
    build_eval_loader,
    build_train_loader,
    read_images,
    unused_part_remark,
)
from lib.data.image_list import ImageList
from lib.data.samplers import TrainBatches
from lib.data.watching import WatchedLoader
from lib.evaluation.forward import ForwardPass, build_forward_pass
from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats
from lib.models.build import build_model, place
from lib.runtime import device as devices
from lib.runtime.distributed import Processes
from lib.runtime.precision import Precision
from lib.training.checkpoint import Position, put_back, restore_rng_states
from lib.training.ema import AveragedWeights
from lib.training.held_out import (
    PictureNames,
    picture_names,
    saved_holdout,
    split_remarks,
    with_saved_split,
)
from lib.training.objective import Objective, build_objective
from lib.training.optim import build_optimizer, check_same_groups, check_state_sizes
from lib.training.optimising import (
    build_average,
    made_trainable,
    optimising_remarks,
    optimizer_options,
)
from lib.training.start import (
    StartingPoint,
    TrainRequest,
    check_same_data,
    check_same_start,
    check_work_left,
    class_count,
    decoder_remark,
    find_start,
    look_alike_remarks,
    starting_position,
    teacher_remark,
)


@dataclass(frozen=True)
class TrainingSetup:
    """A run's objects, with the state of what it starts from already in them."""

    config: CfgNode  # as asked for, but for what a resumed run keeps
    images: ImageList
    val_images: ImageList
    names: PictureNames  # of both
    network: nn.Module  # the plain one: evaluated and saved
    model: nn.Module  # the same weights, wrapped for several cards: trained
    average: AveragedWeights | None  # of the network's weights
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: WatchedLoader
    val_loader: WatchedLoader
    forward_pass: ForwardPass
    objective: Objective
    start: StartingPoint
    started: str  # one line: what the weights come from
    seed: int
    position: Position
    decoder: str  # of the training pictures
    remarks: tuple[str, ...]  # where a resume is not exact, data or settings have no effect

    @property
    def eval_network(self) -> nn.Module:
        """What the accuracy is of, and what a run leaves: the averaged weights, if there are."""
        return self.network if self.average is None else self.average.network

    @property
    def batches(self) -> TrainBatches:
        """The order of the training images; set its epoch and first step."""
        return self.loader.batch_sampler  # type: ignore[return-value]


@dataclass
class Progress:
    """What changes from epoch to epoch and goes into a checkpoint beside weights and optimizer."""

    sums: Metrics  # of the present epoch's steps before `TrainingSetup.position`, over all ranks
    best_accuracy: float  # top-1 in percent; -1: nothing was evaluated yet
    report: dict[str, object]  # what result.json will say so far

    def note_epoch(self, stats: EpochStats) -> None:
        """Put the training figures of an epoch, or of its part until a stop, into the report.

        The speed is the whole run's, resumes included; the launchers report the last epoch's.
        """
        before_s, num_before = (self.report.get(k, 0) for k in ("train_time_s", "num_images_timed"))
        time_s = before_s + stats.timed_s  # type: ignore[operator]
        num_images = num_before + stats.num_images_timed  # type: ignore[operator]
        if num_images:  # none where all was done before a resume: its figure stands
            self.report["images_per_s"] = round(num_images / time_s, 1)
        self.report.update(
            train_time_s=round(time_s, 3),
            num_images_timed=num_images,
            images_per_s_last_epoch=round(stats.images_per_s, 1),
            step_time_ms=round(1000 * stats.time_s, 3),
            train_loss=round(stats.last_loss, 5),
            train_accuracy_top1=round(stats.metrics.accuracy_top1, 3),
        )

    def num_epochs_since_best(self, num_done: int) -> int:
        """Return how many of `num_done` epochs came after the best; 0 where its file is lost."""
        best_epoch = self.report.get("best_epoch")
        if not isinstance(best_epoch, int) or self.best_accuracy < 0:
            return 0
        return num_done - 1 - best_epoch

    def with_saved_speed(self, stats: EpochStats) -> EpochStats:
        """Return the figures of an epoch whose last step was done before a resume."""
        saved: dict[str, float] = self.report  # type: ignore[assignment]
        return replace(
            stats,
            time_s=saved["step_time_ms"] / 1000,
            images_per_s=saved.get("images_per_s_last_epoch", saved["images_per_s"]),
            num_images_timed=0,
            last_loss=saved["train_loss"],
        )


def build_training(asked: CfgNode, request: TrainRequest, processes: Processes) -> TrainingSetup:
    """Read the data lists, then build network, optimizer and loaders and load what there is.

    Raises ValueError and FileNotFoundError for data, settings or weights that do not fit; bad data
    is told before the network is built.
    """
    start = find_start(asked, request, processes)
    config = with_saved_split(asked, start)
    images, val_images = read_images(config, request.data_path, saved_holdout=saved_holdout(start))
    names = picture_names(config, request.data_path, start=start, images=images, val=val_images)
    check_same_data(start, images.class_names, num_images=len(images), names_sum=names.sum)
    check_same_start(start, processes)
    seed = start.seed(config.SEED)
    torch.manual_seed(seed)
    random.seed(seed)  # nothing here draws from it, but its state is saved with the others
    forward_pass = build_forward_pass(config, processes, amp_backend=config.TRAIN.AMP_BACKEND)
    precision = forward_pass.precision
    network: nn.Module = build_model(config, class_count(config, images.class_names))
    started = start.load_into(network, config, images.class_names)
    network = made_trainable(network, config, processes)
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    objective = build_objective(config, processes, images, seed=seed)
    average = build_average(config, network, start)
    schedule = run_schedule(config, processes.ranks.world_size)
    plain_optimizer = build_optimizer(
        network,
        optimizer_options(config),
        learning_rate=schedule.base,
        device=processes.device,
        fused=not precision.uses_apex,
    )
    network, optimizer = precision.prepare(network, plain_optimizer)
    _restore(start, optimizer, precision, config=config, processes=processes)
    decoder = agree_on_decoder(config, processes, saved=start.decoder)
    loader = build_train_loader(config, images, processes, seed=seed, decoder=decoder)
    _check_smallest_part(loader.batch_sampler, config)  # type: ignore[arg-type]
    val_loader = build_eval_loader(config, val_images, processes, eval_recipe(config))
    position, remark = starting_position(
        start,
        num_steps=len(loader.batch_sampler),  # type: ignore[arg-type]
        images_per_step=config.TRAIN.BATCH_SIZE_PER_GPU * processes.ranks.world_size,
    )
    check_work_left(
        start, position, end_epoch=config.TRAIN.END_EPOCH, measures=request.is_performance
    )
    remarks = (
        remark,
        unused_part_remark(config, request.data_path),
        *look_alike_remarks(start, images.class_names),
        decoder_remark(start, decoder),
        teacher_remark(start, objective.teacher_sum),
        *split_remarks(asked, start, images, len(val_images)),
        *optimising_remarks(config, start),
        *unused_settings(config),
    )
    return TrainingSetup(
        config, images, val_images, names, network, _wrapped(network, config, processes), average,
        optimizer, schedule, loader, val_loader, forward_pass, objective, start, started, seed,
        position, decoder, tuple(said for said in remarks if said),
    )  # fmt: skip


def restored_progress(start: StartingPoint) -> Progress:
    """Return the resumed run's progress, or that of a new one."""
    if start.state is None:
        return Progress(Metrics(), -1.0, {})
    state = start.state
    with put_back("sums", start.path):
        return Progress(Metrics(*state["sums"]), state["best_accuracy"], dict(state["report"]))


def _check_smallest_part(batches: TrainBatches, config: CfgNode) -> None:
    # Normalising one picture's 1 x 1 maps over themselves is impossible; say so before hours pass.
    sizes = (config.TRAIN.BATCH_SIZE_PER_GPU, *batches.last_batch_sizes)
    parts = [size // min(config.TRAIN.ACCUM_STEPS, size) for size in sizes if size]
    if config.MODEL.IMAGE_SIZE[0] == 32 and min(parts) == 1:
        raise ValueError(
            "the last batch of an epoch, or a part of it, has 1 image a card, whose maps are 1 x 1 "
            "at MODEL.IMAGE_SIZE 32, and BatchNorm cannot train on that: take another --bs or "
            "TRAIN.ACCUM_STEPS, or MODEL.IMAGE_SIZE [64, 64]"
        )


def _restore(
    start: StartingPoint,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    *,
    config: CfgNode,
    processes: Processes,
) -> None:
    """Put a resumed run's optimizer, loss scale and random generators back."""
    state = start.state
    if state is None:
        return
    if state["optimizer_name"] != config.TRAIN.OPTIMIZER:
        raise ValueError(
            f"{start.path} was trained with TRAIN.OPTIMIZER {state['optimizer_name']}, not "
            f"{config.TRAIN.OPTIMIZER}: resume needs the same"
        )
    check_same_groups(optimizer, state["optimizer"])
    # Weight decay and momentum are the present configuration's, not the saved run's.
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    with put_back("optimizer's state", start.path):
        optimizer.load_state_dict(state["optimizer"])
        check_state_sizes(optimizer)
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()  # the saved run's settings may be more
        group.update(setting, params=parameters)
    with put_back("loss scale", start.path):
        precision.load_state_dict(state["precision"])
    states, rank = state["rng"], processes.ranks.rank
    if rank < len(states):
        with put_back("random generators' state", start.path):
            restore_rng_states(states[rank], processes.device)


def _wrapped(network: nn.Module, config: CfgNode, processes: Processes) -> nn.Module:
    network = devices.compiled(network, processes.device, config.TRAIN.COMPILE)
    if processes.ranks.world_size == 1:
        return network
    device = processes.device
    # Buffers are agreed on before each evaluation instead of being broadcast in every step;
    # torch 2.14 renamed the switch.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    wrap: Callable[..., nn.Module] = DistributedDataParallel
    ids = None if device.type == "cpu" else [device.index]
    return wrap(network, device_ids=ids, **{name: False})
