"""One exact evaluation: no command line, no configuration, no files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from lib.data.bad_images import BadImages
from lib.data.loading import Batch
from lib.evaluation.forward import ForwardPass
from lib.metrics.meter import Meter, Metrics, are_sound
from lib.metrics.predictions import PredictionRecorder, UnsoundPlaces, merged
from lib.metrics.stats import EvalStats
from lib.runtime import device as devices
from lib.runtime.distributed import Processes


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    num_images: int,
    forward_pass: ForwardPass,
    on_batch: Callable[[int, BadImages], None],
    with_predictions: bool = False,
) -> EvalStats:
    """Evaluate this rank's exact share of `num_images` images; return figures over all ranks.

    `on_batch` gets each batch's index and its undecodable files, and may raise to stop.
    """
    processes = forward_pass.processes
    model.eval()
    meter, recorder, num_batches = Meter(processes.device), PredictionRecorder(), 0
    unsound = UnsoundPlaces()
    devices.synchronize(processes.device)
    began_s = time.perf_counter()
    for num_batches, batch in enumerate(batches, start=1):
        on_batch(num_batches - 1, batch.bad)
        if not len(batch.targets):
            continue
        logits = forward_pass.logits(model, forward_pass.normalized(batch.images))
        targets = forward_pass.on_device(batch.targets)
        losses = F.cross_entropy(logits, targets, reduction="none")
        meter.add(logits, targets, losses, step=num_batches)
        sound = are_sound(logits, losses)
        unsound.add(batch.indices, sound)
        if with_predictions:
            recorder.add(batch.indices, logits, targets, sound=sound)
    counts = meter.read().metrics.counts()
    time_s = time.perf_counter() - began_s
    metrics = Metrics(*processes.sum(counts))
    return EvalStats(
        metrics,
        num_expected=num_images,
        time_s=time_s / max(1, num_batches),
        images_per_s=metrics.num_images / max(processes.gather(time_s)),
        predictions=merged(processes.gather(recorder.read())) if with_predictions else None,
        not_finite=_of_all(processes, unsound) if metrics.num_not_finite else (),
    )


def _of_all(processes: Processes, unsound: UnsoundPlaces) -> tuple[int, ...]:
    return tuple(sorted(sum(processes.gather(unsound.read()), [])))
