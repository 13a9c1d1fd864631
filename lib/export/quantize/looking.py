"""Pictures to look at a model's range of numbers with: a few of a folder, or made-up ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lib.config.recipe import Recipe
from lib.data.transforms import eval_pixels, normalize
from lib.export.quantize.pictures import calibration_pictures, spread
from lib.export.quantize.sessions import Images, load

_LARGEST_MADE_UP = 1024  # pixels a side
_NUM_PICTURES = 8  # a model that overflows float16 does so on nearly any picture


def pictures_to_look_with(folder: Path | None, recipe: Recipe) -> Iterator[tuple[str, Images]]:
    """Yield pictures as the network sees them, 1 x 3 x S x S, each with its name.

    Without a folder: black, white, noise, and noise in large spots.
    Raises FileNotFoundError, and ValueError for a picture that can't be read.
    """
    if folder is not None:
        for picture in spread(calibration_pictures(folder), _NUM_PICTURES):
            yield str(picture.path), load([picture], recipe)
        return
    side = min(recipe.resize, _LARGEST_MADE_UP)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    spots = np.repeat(np.repeat(noise[::16, ::16], 16, axis=0), 16, axis=1)
    for name, pixels in {
        "a black picture": np.zeros_like(noise),
        "a white picture": np.full_like(noise, 255),
        "noise": noise,
        "coloured spots": spots,
    }.items():
        yield name, normalize(eval_pixels(Image.fromarray(pixels), recipe), recipe)[None]
