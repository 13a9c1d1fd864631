"""All that a training run computes with, built from its configuration: data, network, optimizer."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from lib.config.keys import unused_settings
from lib.config.recipe import eval_recipe
from lib.config.schedules import Schedule, run_schedule
from lib.data.build import (
    agree_on_decoder,
    build_eval_loader,
    build_train_loader,
    overlap_remarks,
    read_images,
    unused_part_remark,
)
from lib.data.image_list import ImageList
from lib.data.samplers import TrainBatches
from lib.data.watching import WatchedLoader
from lib.evaluation.forward import ForwardPass, build_forward_pass
from lib.models.build import build_model, place
from lib.runtime import device as devices
from lib.runtime.distributed import Processes
from lib.runtime.precision import Precision
from lib.training.checkpoint import Position
from lib.training.ema import AveragedWeights
from lib.training.held_out import (
    PictureNames,
    picture_names,
    saved_holdout,
    split_remarks,
    with_saved_split,
)
from lib.training.objective import Objective, build_objective
from lib.training.optim import build_optimizer
from lib.training.optimising import make_trainable, optimising_remarks, optimizer_options
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


@dataclass(frozen=True, kw_only=True)
class DataSetup:
    """The pictures of a run, and where in them it begins."""

    images: ImageList
    val_images: ImageList
    names: PictureNames  # of both
    decoder: str  # of the training pictures
    loader: WatchedLoader
    val_loader: WatchedLoader
    position: Position
    position_remark: str | None  # where a resume is not exact

    @property
    def batches(self) -> TrainBatches:
        """The order of the training images; set its epoch and first step."""
        return self.loader.batch_sampler  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The objects of a run, with the weights that it starts from."""

    config: CfgNode  # as asked for, but for what a resumed run keeps
    start: StartingPoint
    started: str  # one line: what the weights come from
    seed: int
    data: DataSetup
    network: nn.Module  # the plain one: evaluated and saved
    model: nn.Module  # the same weights, wrapped for several cards: trained
    average: AveragedWeights | None  # of the network's weights
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    forward_pass: ForwardPass
    objective: Objective
    remarks: tuple[str, ...]  # where a resume is not exact, data or settings have no effect

    @property
    def eval_network(self) -> nn.Module:
        """The network that is evaluated, and left: with averaged weights, if there are."""
        return self.network if self.average is None else self.average.network


def build_training(asked: CfgNode, request: TrainRequest, processes: Processes) -> TrainingSetup:
    """Read the data lists, build network, optimizer and loaders, and load the weights.

    Raises ValueError and FileNotFoundError for data, settings or weights that do not fit; bad data
    is told before the network is built.
    """
    start = find_start(asked, request, processes)
    config = with_saved_split(asked, start)
    seed = start.seed(config.SEED)
    data = build_data(config, request, processes, start=start, seed=seed)
    torch.manual_seed(seed)
    random.seed(seed)  # nothing here draws from it, but its state is saved with the others
    forward_pass = build_forward_pass(config, processes, amp_backend=config.TRAIN.AMP_BACKEND)
    network, started = build_network(config, processes, start=start, images=data.images)
    objective = build_objective(config, processes, data.images, seed=seed)
    decay, schedule = config.TRAIN.EMA_DECAY, run_schedule(config, processes.ranks.world_size)
    average = AveragedWeights(network, decay) if decay else None
    network, optimizer = build_optimization(
        network, config, forward_pass.precision, learning_rate=schedule.base
    )
    remarks = (
        data.position_remark,
        unused_part_remark(config, request.data_path),
        *overlap_remarks(config, request.data_path),
        *look_alike_remarks(start, data.images.class_names),
        decoder_remark(start, data.decoder),
        teacher_remark(start, objective.teacher_sum),
        *split_remarks(asked, start, data.images, len(data.val_images)),
        *optimising_remarks(config, start),
        *unused_settings(config),
    )
    return TrainingSetup(
        config=config,
        start=start,
        started=started,
        seed=seed,
        data=data,
        network=network,
        model=_wrapped(network, config, processes),
        average=average,
        optimizer=optimizer,
        schedule=schedule,
        forward_pass=forward_pass,
        objective=objective,
        remarks=tuple(said for said in remarks if said),
    )


def build_data(
    config: CfgNode,
    request: TrainRequest,
    processes: Processes,
    *,
    start: StartingPoint,
    seed: int,
) -> DataSetup:
    """Return the pictures and their loaders; raises as `build_training`."""
    images, val_images = read_images(config, request.data_path, saved_holdout=saved_holdout(start))
    names = picture_names(config, request.data_path, start=start, images=images, val=val_images)
    check_same_data(start, images.class_names, num_images=len(images), names_sum=names.sum)
    check_same_start(start, processes)
    decoder = agree_on_decoder(config, processes, saved=start.decoder)
    loader = build_train_loader(config, images, processes, seed=seed, decoder=decoder)
    batches: TrainBatches = loader.batch_sampler  # type: ignore[assignment]
    _check_smallest_micro_batch(batches, config)
    position, remark = starting_position(
        start,
        num_steps=len(batches),
        images_per_step=config.TRAIN.BATCH_SIZE_PER_GPU * processes.ranks.world_size,
    )
    check_work_left(
        start, position, end_epoch=config.TRAIN.END_EPOCH, measures=request.is_performance
    )
    return DataSetup(
        images=images,
        val_images=val_images,
        names=names,
        decoder=decoder,
        loader=loader,
        val_loader=build_eval_loader(config, val_images, processes, eval_recipe(config)),
        position=position,
        position_remark=remark,
    )


def build_network(
    config: CfgNode, processes: Processes, *, start: StartingPoint, images: ImageList
) -> tuple[nn.Module, str]:
    """Return the network on its device, and one line on what its weights come from."""
    network: nn.Module = build_model(config, class_count(config, images.class_names))
    started = start.load_into(network, config, images.class_names)
    network = make_trainable(network, config, processes)
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    return network, started


def build_optimization(
    network: nn.Module, config: CfgNode, precision: Precision, *, learning_rate: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return network and optimizer, ready for the precision of the run."""
    optimizer = build_optimizer(
        network,
        optimizer_options(config),
        learning_rate=learning_rate,
        device=precision.device,
        fused=not precision.uses_apex,
    )
    return precision.prepare(network, optimizer)


def _check_smallest_micro_batch(batches: TrainBatches, config: CfgNode) -> None:
    # Normalising one picture's 1 x 1 maps over themselves is impossible; say so before hours pass.
    sizes = (config.TRAIN.BATCH_SIZE_PER_GPU, *batches.last_batch_sizes)
    num_images = [size // min(config.TRAIN.ACCUM_STEPS, size) for size in sizes if size]
    if config.MODEL.IMAGE_SIZE[0] == 32 and min(num_images) == 1:
        raise ValueError(
            "the last batch of an epoch, or a micro-batch of it, has 1 image a card, whose maps "
            "are 1 x 1 at MODEL.IMAGE_SIZE 32, and BatchNorm cannot train on that: take another "
            "--bs or TRAIN.ACCUM_STEPS, or MODEL.IMAGE_SIZE [64, 64]"
        )


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
