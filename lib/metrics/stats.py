"""Figures of a log interval, an epoch and an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from lib.metrics.meter import Metrics
from lib.metrics.predictions import Predictions


@dataclass(frozen=True)
class IntervalStats:
    """One console line's worth of training; figures over all cards, since the line before."""

    step: int  # within the epoch, from 0
    num_steps: int
    time_s: float  # a step
    images_per_s: float
    data_time_s: float  # a step's wait for its images, on this process
    decode_time_s: float  # spent on a step's images, by this process's workers together
    metrics: Metrics
    learning_rate: float
    loss_scale: float


@dataclass(frozen=True)
class EpochStats:
    """One pass over the training images; figures over all cards."""

    metrics: Metrics
    time_s: float  # a step, after warm-up
    images_per_s: float  # after warm-up
    num_steps_done: int  # within the epoch, those before a resume included
    last_loss: float  # of the last console line
    stop_signal: int = 0  # the signal that ended the epoch early; 0: it ran to its end
    num_images_timed: int = 0  # those that `images_per_s` is of

    @property
    def timed_s(self) -> float:
        """The seconds that `images_per_s` is of."""
        return self.num_images_timed / max(self.images_per_s, 1e-9)


@dataclass(frozen=True)
class EvalStats:
    """One exact pass over the validation images, over all cards."""

    metrics: Metrics
    num_expected: int  # images in the list; those that could not be decoded are not in metrics
    time_s: float  # a batch
    images_per_s: float
    predictions: Predictions | None = None  # of each image, where they were asked for
    not_finite: tuple[int, ...] = ()  # places in the list of images with NaN or infinite outputs
