"""From a configuration to the input recipe of every evaluation, prediction and export."""

from __future__ import annotations

from yacs.config import CfgNode

from lib.recipe import Recipe, eval_resize


def eval_recipe(config: CfgNode) -> Recipe:
    """Return how pictures are prepared to be evaluated: as in training, or in TEST's own size."""
    crop = config.TEST.IMAGE_SIZE or config.MODEL.IMAGE_SIZE[0]
    return Recipe(
        orientation=config.DATASET.ORIENTATION,
        resize=config.TEST.RESIZE or eval_resize(crop),
        crop=crop,
    )
