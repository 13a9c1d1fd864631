"""lib/offline/fast_crop.py against lib/data/transforms.py, bit for bit."""

import random

import numpy as np
import pytest
from PIL import Image

from lib.config.recipe import eval_resize
from lib.data.transforms import center_crop, resize_short_side
from lib.offline import fast_crop
from lib.offline.fast_crop import eval_crop


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain(image: Image.Image, crop: int) -> bytes:
    return center_crop(resize_short_side(image, eval_resize(crop)), crop).tobytes()


def saving(image: Image.Image, crop: int) -> bytes:
    return eval_crop(image, resize=eval_resize(crop), crop=crop).tobytes()


@pytest.fixture
def shortcuts(monkeypatch) -> list[tuple[int, int]]:
    """Sizes of the pictures that were not resized whole."""
    taken: list[tuple[int, int]] = []
    shortcut = fast_crop._cropped_between

    def noting(image: Image.Image, *, resize: int, crop: int) -> Image.Image:
        taken.append(image.size)
        return shortcut(image, resize=resize, crop=crop)

    monkeypatch.setattr(fast_crop, "_cropped_between", noting)
    return taken


def test_pictures_of_usual_proportions_are_cut_between_the_passes(shortcuts):
    sizes = random.Random(0)
    for _ in range(150):
        crop = sizes.choice((28, 56, 112, 224))
        short = sizes.randint(1, 400)
        long = sizes.randint(short, short * 3 // 2)
        size = (short, long) if sizes.random() < 0.5 else (long, short)
        shortcuts.clear()
        image = noise(*size)
        assert saving(image, crop) == plain(image, crop), (size, crop)
        assert size in shortcuts, (size, crop)


@pytest.mark.parametrize("size", [(100, 151), (151, 100), (100, 290), (1, 9), (61, 500)], ids=str)
def test_long_pictures_are_resized_whole(shortcuts, size):
    """Pillow 13 begins with the columns for some, older ones with the rows for all."""
    image = noise(*size)
    assert saving(image, 56) == plain(image, 56)
    assert size not in shortcuts


@pytest.mark.parametrize("crop", [1, 7, 32, 70, 96, 192, 299, 1000])
def test_sizes_whose_weights_are_not_exact_are_resized_whole(shortcuts, crop):
    for size in ((67, 90), (90, 67), (40, 40)):
        image = noise(*size)
        assert saving(image, crop) == plain(image, crop)
    resize = eval_resize(crop)
    assert bool(shortcuts) == (resize & (resize - 1) == 0)


def test_a_pillow_that_works_otherwise_is_noticed(monkeypatch):
    """The shortcut is compared with the whole way once; where they differ it isn't taken."""
    monkeypatch.setattr(
        fast_crop, "_cropped_between", lambda image, **_: Image.new("RGB", (56, 56), "red")
    )
    fast_crop._pillow_agrees.cache_clear()
    try:
        image = noise(90, 70)
        assert saving(image, 56) == plain(image, 56)
    finally:
        fast_crop._pillow_agrees.cache_clear()
