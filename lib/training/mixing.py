"""Mixup and CutMix: pairs of pictures of a batch, mixed on the device.

mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899. Picture i of a batch of
N is mixed with picture N-1-i, all with the same share: batches are shuffled, so any pairing is as
good as a drawn one, and this one needs no index.

torchvision's transforms of these names draw from torch's global generator, whose state a resume in
mid-epoch can't rebuild, and their one-hot labels read a number back from the device. Here the few
random numbers are drawn on the host, from a seed that only epoch, step and rank go into.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed: `share` of each picture is its own."""

    share: float
    box: Box | None = None  # what comes from the partner; None: everything, faded in


@dataclass(frozen=True)
class Mixing:
    """Which batches are mixed, and how, as a pure function of seed, epoch, step and rank.

    Args:
        mixup, cutmix: alpha of the Beta(alpha, alpha) that shares are drawn from; 0: not used.
        prob: of a batch to be mixed.
        switch_prob: of CutMix, where both are in use.
        seed: of the run.
        rank: of this process.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5
    seed: int = 0
    rank: int = 0

    def draw(self, epoch: int, step: int, *, height: int, width: int) -> Mix | None:
        """Return how the batch of this step is mixed; None: it isn't.

        CutMix's box is cut off at the picture's edges, and the share is that of the exact area.
        """
        if not (self.mixup or self.cutmix):
            return None
        # A text, which pictures' seeds are not: none of these sequences is one of theirs.
        rng = random.Random(f"mixing {self.seed} {epoch} {step} {self.rank}")
        if rng.random() >= self.prob:
            return None
        by_box = rng.random() < self.switch_prob if self.mixup and self.cutmix else self.cutmix > 0
        alpha = self.cutmix if by_box else self.mixup
        share = rng.betavariate(alpha, alpha)
        if not by_box:
            return Mix(share)
        side = math.sqrt(1 - share)
        left, right = _span(width, side, rng)
        top, bottom = _span(height, side, rng)
        area = (right - left) * (bottom - top)
        return Mix(1 - area / (width * height), (left, top, right, bottom))


def _span(length: int, side: float, rng: random.Random) -> tuple[int, int]:
    """Draw a middle; return begin and end around it, `side` of the length apart if they fit."""
    half = side * length / 2
    middle = rng.uniform(0, length)
    return max(0, round(middle - half)), min(length, round(middle + half))


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """Return the pictures of a batch, each mixed with its partner.

    They are mixed before they are normalised. CutMix then moves bytes and stays uint8; mixup gives
    float32 levels, not rounded to whole ones, and normalising these is mixing what is normalised.

    Args:
        images: N x H x W x 3, uint8; left as it is.
    """
    if mix.box is None:
        levels = images.to(torch.float32)
        return levels * mix.share + levels.flip(0) * (1 - mix.share)
    left, top, right, bottom = mix.box
    result = images.clone()
    result[:, top:bottom, left:right] = images[:, top:bottom, left:right].flip(0)
    return result


def partners(targets: Tensor) -> Tensor:
    """Return the classes of the pictures that those of a batch are mixed with."""
    return targets.flip(0)
