"""The pictures of an .om with AIPP, which crops and normalises by itself: their size in pixels."""

from __future__ import annotations

from lib.config.recipe import eval_resize


def crop_margin(side: int) -> int:
    """Pixels that AIPP cuts off on each side of its input: 16 for 224.

    An even number: only then is a crop of a crop the crop that training and evaluation make, as
    the offset's halves are rounded to even.
    """
    return (eval_resize(side) - side) // 4 * 2


def uint8_size(side: int) -> int:
    """The side of AIPP's square input for a network that sees `side` pixels: 256 for 224."""
    return side + 2 * crop_margin(side)
