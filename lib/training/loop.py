"""One epoch of training, step by step. No command line, no configuration, no files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from lib.data.loading import Batch
from lib.evaluation.forward import ForwardPass
from lib.metrics.meter import Meter, Metrics
from lib.metrics.stats import EpochStats
from lib.models.layer_groups import begin_training
from lib.runtime import device as devices
from lib.runtime.distributed import gradient_sync
from lib.training.clock import Clock
from lib.training.objective import PLAIN, Objective, split_batch
from lib.training.optim import set_learning_rate
from lib.training.steps import StepRange, TrainHooks


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    optimizer: torch.optim.Optimizer,
    forward_pass: ForwardPass,
    steps: StepRange,
    hooks: TrainHooks,
    metrics_so_far: Metrics,
    objective: Objective = PLAIN,
    num_micro_batches: int = 1,
) -> EpochStats:
    """Run the steps of `steps` and return what they came to.

    `batches` begins at `steps.first`. `metrics_so_far` are those, over all ranks, of this epoch's
    steps before a resume. Besides the warm-up steps the host waits for the device once a log
    interval. Each batch is computed in `num_micro_batches`, whose gradients add up to that of the
    whole batch; batch norms see each micro-batch alone.
    Raises ValueError where a loss is NaN or infinite, naming step, rate and scale.
    """
    processes, precision = forward_pass.processes, forward_pass.precision
    meter, clock = Meter(processes.device), Clock()
    total, last_loss, stop_signal, num_done = metrics_so_far, float("nan"), 0, steps.first
    read = partial(_read_metrics, meter, forward_pass, hooks)
    begin_training(model)
    for step, batch in zip(range(steps.first, steps.end), clock.waited(batches), strict=False):
        hooks.on_bad_images(batch.bad)
        rate = hooks.learning_rate(step)
        set_learning_rate(optimizer, rate)
        precision.clear_gradients(optimizer)
        whole = objective.mixed_batch(batch, forward_pass, epoch=steps.epoch, step=step)
        micro_batches = split_batch(*whole, num_micro_batches)
        for number, (images, labels) in enumerate(micro_batches, start=1):
            # Between cards gradients travel once a step, with the last micro-batch.
            with gradient_sync(model, enabled=number == len(micro_batches)):
                images, labels = forward_pass.normalized(images), labels.to(processes.device)
                with precision.autocast():
                    logits = model(images)
                logits = logits.float()
                losses = objective.losses(logits, labels, images, forward_pass)
                share = len(losses) / len(batch.targets)  # of the mean over the whole batch
                precision.backward(losses.mean() * share, optimizer)
            meter.add(logits.detach(), labels.main, losses.detach(), step=step)
        precision.step(optimizer)
        clock.count(len(batch.targets), batch.decode_s)
        num_done = step + 1
        if steps.num_warmup and step < steps.first + steps.num_warmup:
            devices.synchronize(processes.device)
            hooks.on_first_step(clock.lap(counts=not steps.is_warmup(step)))
        if steps.is_logged(step):
            metrics, scale = read()
            meter.reset()
            total, last_loss = total + metrics, metrics.loss
            hooks.on_interval(clock.interval(step, steps, metrics, rate=rate, scale=scale))
        stop_signal = hooks.after_step(num_done, lambda: total + read()[0])  # noqa: B023  called at once
        if stop_signal:
            total = total + read()[0]
            break
    return clock.epoch(processes, total, num_done=num_done, loss=last_loss, signal=stop_signal)


def _read_metrics(
    meter: Meter, forward_pass: ForwardPass, hooks: TrainHooks
) -> tuple[Metrics, float]:
    """Return the metrics since the last reset, over all ranks, and the loss scale; a host sync."""
    processes = forward_pass.processes
    reading = meter.read(forward_pass.precision.loss_scale())
    metrics = Metrics(*processes.sum(reading.metrics.counts()))
    if metrics.num_not_finite:
        bad_steps = processes.gather(reading.first_bad_step)
        step = min(step for step in bad_steps if step is not None)
        raise ValueError(_not_finite(step, hooks.learning_rate(step), reading.loss_scale))
    return metrics, reading.loss_scale


def _not_finite(step: int, learning_rate: float, loss_scale: float) -> str:
    return (
        f"the outputs or the loss became NaN or infinite at step {step} of this epoch (learning "
        f"rate {learning_rate:g}, loss scale {loss_scale:g}); the last checkpoint is untouched: "
        "lower TRAIN.LR, or where precision is fp16 take --precision bf16 or fp32"
    )
