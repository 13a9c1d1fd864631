"""From a configuration to the input recipe of every evaluation, prediction and export."""

from __future__ import annotations

from yacs.config import CfgNode

from lib.recipe import Recipe, eval_resize

TEST_SIZE_KEYS = ("TEST.IMAGE_SIZE", "TEST.RESIZE")
SIZE_KEYS = ("MODEL.IMAGE_SIZE", *TEST_SIZE_KEYS)
INPUT_KEYS = (*SIZE_KEYS, "DATASET.ORIENTATION")  # what a recipe is made of


def eval_recipe(config: CfgNode) -> Recipe:
    """Return how pictures are prepared to be evaluated: as in training, or in TEST's own size."""
    crop = config.TEST.IMAGE_SIZE or config.MODEL.IMAGE_SIZE[0]
    return Recipe(
        orientation=config.DATASET.ORIENTATION,
        resize=config.TEST.RESIZE or eval_resize(crop),
        crop=crop,
    )
