"""From an RGB picture to the pixels the network is fed: the one definition of it.

Training, evaluation and the offline tools share these functions, so a picture is the same to
the bit wherever it is prepared. Only numpy and Pillow are needed. The evaluation path equals
torchvision's `Resize(resize)`, `CenterCrop(crop)`, `ToTensor()`, `Normalize(mean, std)` on PIL
pictures; the training path is that library's `RandomResizedCrop` and `RandomHorizontalFlip`
("Inception-style" augmentation, Szegedy et al., Going Deeper with Convolutions, 2015, section 6).
`lib.data.rgb` opens the files.
"""

import math
import random

import numpy as np
import numpy.typing as npt
from PIL import Image

from lib.config.recipe import USUAL, Recipe

PixelArray = npt.NDArray[np.uint8]

# A 1 x 20000 strip has a harmless size as a file, but its short side scaled to 256 makes more
# than a thousand million pixels. 2**28 pixels are 1 GiB inside Pillow.
MAX_RESIZED_PIXELS = 2**28

NUM_CROP_TRIES = 10


def resize_short_side(
    image: Image.Image, size: int, interpolation: str = USUAL.interpolation
) -> Image.Image:
    """Scale, antialiased, so that the short side is `size`, the long one rounded down.

    Raises:
        ValueError: the result would be larger than `MAX_RESIZED_PIXELS`.
    """
    width, height = image.size
    new_size = _resized(image.size, size)
    if math.prod(new_size) > MAX_RESIZED_PIXELS:
        raise ValueError(
            f"a picture of {width} x {height} pixels is too long and thin to be resized to a "
            f"short side of {size}: cut it or leave it out"
        )
    return image.resize(new_size, Image.Resampling[interpolation.upper()])


def _resized(image_size: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height with the short side at `size`, the long one rounded down."""
    width, height = image_size
    new_long = int(size * max(width, height) / min(width, height))
    return (size, new_long) if width <= height else (new_long, size)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the middle `size` x `size` pixels; a side that is shorter is filled with black."""
    left, top = (_crop_offset(length, size) for length in image.size)
    return image.crop((left, top, left + size, top + size))


def _crop_offset(length: int, size: int) -> int:
    """Where the crop begins; negative where black is added in front.

    The two cases round differently: a cut rounds halves to even, a fill puts the odd pixel last.
    """
    if length < size:
        return -((size - length) // 2)
    return round((length - size) / 2)


def eval_pixels(image: Image.Image, recipe: Recipe) -> PixelArray:
    """Pixels for evaluation: the recipe's resize and centre crop; uint8 crop x crop x 3.

    Raises:
        ValueError: see `resize_short_side`.
    """
    resized = resize_short_side(image, recipe.resize, recipe.interpolation)
    return np.array(center_crop(resized, recipe.crop))


def eval_box(image_size: tuple[int, int], recipe: Recipe) -> tuple[float, float, float, float]:
    """Where `eval_pixels` lie in the picture: left, top, right, bottom, in its own pixels.

    Outside of the picture where the crop is larger than what was resized.
    """
    resized = _resized(image_size, recipe.resize)
    scales = [old / new for old, new in zip(image_size, resized, strict=True)]
    left, top = (_crop_offset(length, recipe.crop) for length in resized)
    return (
        left * scales[0],
        top * scales[1],
        (left + recipe.crop) * scales[0],
        (top + recipe.crop) * scales[1],
    )


def train_pixels(
    image: Image.Image,
    *,
    size: int,
    rng: random.Random,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    hflip: float,
) -> PixelArray:
    """Pixels for training: a random crop resized to `size`, mirrored at times.

    A pure function of the picture and the state of `rng`.

    Args:
        image: an RGB picture.
        size: side of the result in pixels.
        rng: where every random number comes from.
        scale: smallest and largest area of the crop, as a share of the picture.
        ratio: smallest and largest width/height of the crop.
        hflip: probability of mirroring left and right.

    Returns:
        uint8, size x size x 3.
    """
    left, top, width, height = random_crop_box(image.size, rng=rng, scale=scale, ratio=ratio)
    # Cropped first: a resize with a box would blend in pixels from outside the crop.
    crop = image.crop((left, top, left + width, top + height))
    resized = crop.resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < hflip:
        # Pillow mirrors whole pixels; numpy would move bytes, at ten times the cost.
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(resized)


def random_crop_box(
    image_size: tuple[int, int],
    *,
    rng: random.Random,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draw a crop (left, top, width, height) whose area and log-ratio are uniform.

    A draw that doesn't fit in the picture is repeated, ten times in all; after that the largest
    central crop with an allowed ratio is taken.
    """
    image_width, image_height = image_size
    for _ in range(NUM_CROP_TRIES):
        area = image_width * image_height * rng.uniform(*scale)
        width_by_height = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width = round(math.sqrt(area * width_by_height))
        height = round(math.sqrt(area / width_by_height))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = rng.randint(0, image_height - height)
            left = rng.randint(0, image_width - width)
            return left, top, width, height
    return _central_crop_box(image_width, image_height, ratio=ratio)


def _central_crop_box(
    image_width: int, image_height: int, *, ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    width, height = image_width, image_height
    if image_width / image_height < ratio[0]:
        height = max(1, round(image_width / ratio[0]))
    elif image_width / image_height > ratio[1]:
        width = max(1, round(image_height * ratio[1]))
    return (image_width - width) // 2, (image_height - height) // 2, width, height


def normalize(pixels: PixelArray, recipe: Recipe = USUAL) -> npt.NDArray[np.float32]:
    """uint8 H x W x 3 to contiguous float32 3 x H x W: (pixels / 255 - mean) / std.

    Every step is rounded to float32, as in torchvision's `ToTensor` and `Normalize`. The planes are
    in the order of the recipe's channels, which its mean and std are in too.
    """
    if recipe.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    planes /= np.float32(255)
    if recipe.mean is not None:
        planes -= np.array(recipe.mean, np.float32)[:, None, None]
    if recipe.std is not None:
        planes /= np.array(recipe.std, np.float32)[:, None, None]
    return planes
