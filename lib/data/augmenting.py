"""What may happen to a training picture after its crop: RandAugment, TrivialAugment, erasing.

They are torchvision's, which is imported where one of them is asked for and nowhere else. Its
transforms draw from torch's global generator: for each picture it is seeded from the picture's own
random numbers and put back afterwards, so that neither workers nor a resume change a pixel.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import nn

from lib.config.recipe import IMAGENET_MEAN
from lib.data.transforms import PixelArray
from lib.runtime.cli import needing

NO, RANDAUGMENT, TRIVIALAUGMENT = "no", "randaugment", "trivialaugment"
# The normalisation makes this all but zero.
_MEAN_LEVELS = [round(255 * mean) for mean in IMAGENET_MEAN]


@dataclass(frozen=True)
class Extras:
    """What is done beside cropping and mirroring.

    Args:
        auto: no, randaugment (Cubuk et al., arXiv 1909.13719) or trivialaugment (Mueller and
            Hutter, arXiv 2103.10158).
        num_ops, magnitude: operations a picture, and their strength in 0..30; of randaugment.
        erase: probability that a rectangle is filled with the mean colour (Zhong et al.,
            arXiv 1708.04896).
    """

    auto: str = NO
    num_ops: int = 2
    magnitude: int = 9
    erase: float = 0.0


NO_EXTRAS = Extras()


class Changer:
    """Changes a picture's pixels as the extras say; raises ValueError without torchvision."""

    def __init__(self, extras: Extras) -> None:
        transforms = _torchvision_transforms()
        bilinear = transforms.InterpolationMode.BILINEAR
        self._auto: nn.Module | None = None
        if extras.auto == RANDAUGMENT:
            self._auto = transforms.RandAugment(
                extras.num_ops, extras.magnitude, interpolation=bilinear
            )
        elif extras.auto == TRIVIALAUGMENT:
            self._auto = transforms.TrivialAugmentWide(interpolation=bilinear)
        self._erase: nn.Module | None = None
        if extras.erase:
            self._erase = transforms.RandomErasing(extras.erase, value=_MEAN_LEVELS)

    def __call__(self, pixels: PixelArray, rng: random.Random) -> PixelArray:
        """Return the changed pixels, uint8 H x W x 3: a pure function of both arguments."""
        with _torch_seeded(rng.getrandbits(32)):
            if self._auto is not None:  # on a PIL picture, which most operations are faster for
                pixels = np.array(self._auto(Image.fromarray(pixels)))
            if self._erase is not None:
                planes = self._erase(torch.from_numpy(pixels).permute(2, 0, 1))
                pixels = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
        return pixels


def changer(extras: Extras) -> Changer | None:
    """Return what makes the extras' changes; None where there are none.

    Raises:
        ValueError: there are some, and torchvision is not installed.
    """
    return Changer(extras) if extras.auto != NO or extras.erase else None


@contextmanager
def _torch_seeded(seed: int) -> Iterator[None]:
    """Let torch's CPU generator begin at `seed` within the block, and be as before after it.

    `torch.manual_seed` would seed the devices' generators as well.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def _torchvision_transforms() -> ModuleType:
    with needing(
        "AUG.AUTO and AUG.ERASE need the torchvision that fits this torch (python tools/doctor.py "
        "names it): install it, or set them to no and 0"
    ):
        return importlib.import_module("torchvision.transforms.v2")
