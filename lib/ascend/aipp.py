"""An .om with AIPP, which crops and normalises by itself: its input size and its recipe."""

from __future__ import annotations

from lib.config.recipe import Recipe, eval_resize
from lib.export.atc_rules import PROBLEM, Finding


def crop_margin(side: int) -> int:
    """Return the pixels that AIPP cuts off on each side of its input: 16 for 224.

    An even number: only then is a crop of a crop the crop that training and evaluation make, as
    the offset's halves are rounded to even.
    """
    return (eval_resize(side) - side) // 4 * 2


def uint8_size(side: int) -> int:
    """Return the side of AIPP's square input for a network of `side` pixels: 256 for 224."""
    return side + 2 * crop_margin(side)


def check_aipp(recipe: Recipe) -> Finding | None:
    """Return what is wrong with a recipe for aipp.cfg and its input files; None: nothing."""
    differences = recipe.differences(Recipe.for_crop(recipe.crop))
    if not differences:
        return None
    advice = "AIPP and its input files are made for the usual preprocessing: leave out --aipp"
    return Finding("recipe", ", ".join(differences), PROBLEM, advice)
