"""The evaluation crop without the work that is thrown away: the same bits as `lib.data.transforms`.

Pillow resizes in two passes, first along the rows and then along the columns, and rounds to 8 bits
between. Nearly a third of both passes makes pixels that the centre crop drops. Most can be saved
to the bit: the short side's crop goes into its pass, since the part of the picture to be resized,
a multiple of 1/256, is an exact number there; the long side is cut right after its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from lib.data.transforms import center_crop, resize_short_side

# Pillow 13 begins with the columns where a picture is more than twice as tall as wide. Up to this
# proportion every release so far begins with the rows.
_MAX_LONG_BY_SHORT = 1.5
_MAX_RESIZE = 1024
_PROBED_SIZES = ((500, 375), (375, 500), (500, 334), (334, 500), (90, 60), (60, 90))

_BILINEAR = Image.Resampling.BILINEAR


def eval_crop(image: Image.Image, *, resize: int, crop: int) -> Image.Image:
    """Equal to `center_crop(resize_short_side(image, resize), crop)`, in less time.

    Where equality isn't certain (long pictures, a `resize` that is no power of two, a Pillow that
    works otherwise) it is that very expression.
    """
    long_by_short = max(image.size) / min(image.size)
    if (
        long_by_short <= _MAX_LONG_BY_SHORT
        and _is_exact(min(image.size), resize, crop)
        and _pillow_agrees(resize, crop)
    ):
        return _cropped_between(image, resize=resize, crop=crop)
    return center_crop(resize_short_side(image, resize), crop)


def _short_span(short: int, resize: int, crop: int) -> tuple[float, float]:
    """From where to where the crop's pixels come along the short side."""
    first = round((resize - crop) / 2)
    return short * first / resize, short * (first + crop) / resize


def _is_exact(short: int, resize: int, crop: int) -> bool:
    """True where Pillow, which takes the span in 32 bits, finds the weights of the whole side."""
    if not crop <= resize <= _MAX_RESIZE or resize & (resize - 1):
        return False
    first, last = _short_span(short, resize, crop)
    return all(float(np.float32(value)) == value for value in (first, last, last - first))


def _cropped_between(image: Image.Image, *, resize: int, crop: int) -> Image.Image:
    width, height = image.size
    first, last = _short_span(min(width, height), resize, crop)
    new_long = int(resize * max(width, height) / min(width, height))
    if width <= height:
        narrow = image.resize((crop, height), _BILINEAR, box=(first, 0, last, height))
        return center_crop(narrow.resize((crop, new_long), _BILINEAR), crop)
    wide = image.resize((new_long, height), _BILINEAR)
    left = round((new_long - crop) / 2)
    cut = wide.crop((left, 0, left + crop, height))
    return cut.resize((crop, crop), _BILINEAR, box=(0, first, crop, last))


@cache
def _pillow_agrees(resize: int, crop: int) -> bool:
    """Compare both ways on noise; once in a process, for a release that nobody knows yet."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    square = Image.fromarray(noise)
    for width, height in _PROBED_SIZES:
        image = square.crop((0, 0, width, height))
        ours = _cropped_between(image, resize=resize, crop=crop)
        plain = center_crop(resize_short_side(image, resize), crop)
        if ours.tobytes() != plain.tobytes():
            return False
    return True
