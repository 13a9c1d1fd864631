"""Classification metrics as exact sums: counts and a fixed-point loss, never means of means.

All sums are integers, so the order of addition cannot change them: two processes give the numbers
of one. They stay on the device until `read` is called, once a log interval.

A class that shares its score with another comes behind it: a network that can't tell classes apart
is not right by their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_LOSS_UNIT = 2**20  # losses are summed in steps of 2**-20, finer than float32 around log(1000)
# A float32 loss is split into limbs of 40 bits of these steps, each summed in an int64 of its own:
# losses of any size are summed exactly, up to 2**23 images a reading.
_LIMB_BITS = 40
_CUTS = (2.0**20, 2.0**60, 2.0**100)  # where one limb ends and the next begins
_NUM_LIMBS = len(_CUTS) + 1
_SCALE_UNIT = 2**16
_NO_STEP = 2**62
_NO_PLACE = 2**31


@dataclass(frozen=True)
class Metrics:
    """Sums over `num_images`; percentages and the mean loss are derived."""

    num_images: int = 0
    num_correct_top1: int = 0
    num_correct_top5: int = 0
    loss_units: int = 0  # summed loss in units of 2**-20
    num_not_finite: int = 0  # images with NaN or infinity in their outputs or loss: never right

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, int, int, int, int]:
        """Return the five sums in the constructor's order."""
        return (
            self.num_images,
            self.num_correct_top1,
            self.num_correct_top5,
            self.loss_units,
            self.num_not_finite,
        )

    @property
    def loss(self) -> float:
        """Mean loss an image; NaN where any was not finite or there are no images."""
        if self.num_not_finite or not self.num_images:
            return float("nan")
        return self.loss_units / _LOSS_UNIT / self.num_images

    @property
    def accuracy_top1(self) -> float:
        """Percent of the images whose best class is the right one."""
        return 100.0 * self.num_correct_top1 / max(1, self.num_images)

    @property
    def accuracy_top5(self) -> float:
        """Percent of the images whose five best classes hold the right one (all, if fewer)."""
        return 100.0 * self.num_correct_top5 / max(1, self.num_images)


@dataclass(frozen=True)
class Reading:
    """What one host sync brings: the sums since the last reading, and the run's health."""

    metrics: Metrics
    loss_scale: float
    first_bad_step: int | None  # the first step with a loss that is not finite


def places_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return how many classes come before the right one: int64, N long, for logits N x C.

    Equal ones do. Where any of an image's logits is NaN it is more than there are classes.
    """
    num_at_least = (logits >= logits.gather(1, targets.unsqueeze(1))).sum(dim=1)
    return torch.where(logits.isnan().any(dim=1), _NO_PLACE, num_at_least) - 1


def are_sound(logits: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Return N bools: False for images with NaN or infinity among N x C logits, or as loss."""
    return torch.isfinite(losses) & torch.isfinite(logits).all(dim=1)


class Meter:
    """Running sums on the device."""

    def __init__(self, device: torch.device):
        self._device = device
        self._cuts = torch.tensor(_CUTS, device=device).unsqueeze(1)
        units = (float(_LOSS_UNIT), *(1 / cut for cut in _CUTS))
        self._units = torch.tensor(units, device=device).unsqueeze(1)
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self._num_images = 0  # known on the host: batches say their size
        self._sums = torch.zeros(3 + _NUM_LIMBS, dtype=torch.int64, device=self._device)
        self._first_bad_step = torch.full((), _NO_STEP, dtype=torch.int64, device=self._device)

    def add(
        self, logits: torch.Tensor, targets: torch.Tensor, losses: torch.Tensor, *, step: int
    ) -> None:
        """Add a batch: logits N x C, targets N (int64), losses N (float32). No host sync."""
        sound = are_sound(logits, losses)
        places = torch.where(sound, places_of(logits, targets), _NO_PLACE)
        num_bad = (~sound).sum()
        counts = torch.stack([(places < 1).sum(), (places < 5).sum(), num_bad])
        self._num_images += len(targets)
        self._sums += torch.cat([counts, self._limbs(torch.where(sound, losses, 0.0))])
        this_step = torch.where(num_bad > 0, step, _NO_STEP)
        self._first_bad_step = torch.minimum(self._first_bad_step, this_step)

    def _limbs(self, losses: torch.Tensor) -> torch.Tensor:
        """Return the summed limbs (int64) of finite losses; each subtraction here is exact."""
        whole = losses.unsqueeze(0)
        above = torch.div(whole, self._cuts).trunc().mul(self._cuts)  # what the higher limbs hold
        below = torch.cat([above, torch.zeros_like(whole)])
        parts = torch.cat([whole, above]) - below
        return parts.mul(self._units).round().to(torch.int64).sum(dim=1)

    def read(self, loss_scale: torch.Tensor | None = None) -> Reading:
        """Return this process's sums since the last `reset`: the one host sync of an interval."""
        scale = self._sums.new_zeros(()) if loss_scale is None else loss_scale * _SCALE_UNIT
        scale_units = scale.round().to(torch.int64) if loss_scale is not None else scale
        values = torch.cat([self._sums, torch.stack([scale_units, self._first_bad_step])]).tolist()
        top1, top5, num_bad, *limbs, scale_value, first_bad = values
        loss_units = sum(limb << (_LIMB_BITS * place) for place, limb in enumerate(limbs))
        return Reading(
            Metrics(self._num_images, top1, top5, loss_units, num_bad),
            loss_scale=scale_value / _SCALE_UNIT,
            first_bad_step=None if first_bad == _NO_STEP else first_bad,
        )
