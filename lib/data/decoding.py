"""Training pictures from files: as `lib.data.transforms` defines them, or nearly so in less time.

The fast decoder reads JPEG files with libjpeg-turbo (simplejpeg): no rows below the crop, and at a
half, a quarter or an eighth of the size where the crop keeps at least the pixels that are wanted.
Crop and mirroring are drawn as ever. What it does not take (other formats, CMYK, a file without its
end, any error) is Pillow's, so no file is bad for the fast decoder alone. Damage below the crop
goes unseen, unless the file is cut short: that is always found.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from lib.data.augmenting import Changer, Extras, changer
from lib.data.rgb import EXIF, IGNORE, open_rgb, read_orientation
from lib.data.transforms import PixelArray, random_crop_box, train_pixels

try:
    import simplejpeg
except ImportError:
    simplejpeg = None  # type: ignore[assignment]

AUTO, FAST, PILLOW = "auto", "fast", "pillow"

# From a file, or what one holds, and a source of random numbers to uint8, size x size x 3.
TrainReader = Callable[[str | bytes, random.Random], PixelArray]

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all with Huffman codes
# Other frames, and markers that no header of the usual kind has, as they come without a length.
_NOT_TAKEN = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xDA), 0xFF)
_SCAN = 0xDA
_REDUCTIONS = (8, 4, 2)  # libjpeg-turbo has fast code for these and none for those between
_FAST_FOR_TORCH = ("AVX2", "AVX512")  # the processors that it has code of their own for
_CONTEXT_ROWS = 2  # a row's colours are blended with those of the next row of colours


@dataclass(frozen=True)
class Augmentation:
    """What training pictures are made to; see `lib.data.transforms.train_pixels`."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    hflip: float
    extras: Extras = Extras()
    orientation: str = IGNORE  # see `lib.data.rgb.open_rgb`


@dataclass(frozen=True)
class _Frame:
    """A JPEG file's size in pixels, and where in the file its height stands."""

    width: int
    height: int
    height_at: int


@dataclass(frozen=True)
class _Turn:
    """What makes a stored picture upright: rows for columns first, then mirrored where said."""

    swaps: bool = False
    mirrors_columns: bool = False
    mirrors_rows: bool = False

    def upright_size(self, frame: _Frame) -> tuple[int, int]:
        """Return width and height of the upright picture."""
        stored = frame.width, frame.height
        return stored[::-1] if self.swaps else stored

    def stored(
        self, box: tuple[int, int, int, int], size: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """Return where a box (left, top, width, height) of the upright picture lies as stored."""
        left, top, width, height = box
        left = size[0] - left - width if self.mirrors_columns else left
        top = size[1] - top - height if self.mirrors_rows else top
        return (top, left, height, width) if self.swaps else (left, top, width, height)

    def upright(self, pixels: PixelArray) -> PixelArray:
        """Return a part of the stored picture as it is in the upright one."""
        pixels = pixels.transpose(1, 0, 2) if self.swaps else pixels
        pixels = pixels[:, ::-1] if self.mirrors_columns else pixels
        return pixels[::-1] if self.mirrors_rows else pixels


# By the number that a photo's EXIF data has for its orientation.
_TURNS = {
    1: _Turn(),
    2: _Turn(mirrors_columns=True),
    3: _Turn(mirrors_columns=True, mirrors_rows=True),
    4: _Turn(mirrors_rows=True),
    5: _Turn(swaps=True),
    6: _Turn(swaps=True, mirrors_columns=True),
    7: _Turn(swaps=True, mirrors_columns=True, mirrors_rows=True),
    8: _Turn(swaps=True, mirrors_rows=True),
}


def has_fast_decoder() -> bool:
    """Return True where the fast decoder can be used in this process."""
    return simplejpeg is not None


def choose_decoder(setting: str, *, is_installed: bool, saved: str | None = None) -> str:
    """Return 'fast' or 'pillow' for DATASET.DECODER.

    Args:
        setting: auto, fast or pillow. auto stays with what a resumed run had, where it can, and
            takes fast in a new one.
        is_installed: every process has the fast decoder.
        saved: the decoder of the run that is resumed; None for a new one.

    Raises:
        ValueError: fast is asked for and not installed.
    """
    if setting == FAST and not is_installed:
        raise ValueError(
            "DATASET.DECODER is fast, which needs simplejpeg on every machine: pip install "
            "simplejpeg, or use auto or pillow"
        )
    if setting == AUTO:
        return FAST if is_installed and saved != PILLOW else PILLOW
    return setting


def train_reader(decoder: str, augmentation: Augmentation) -> TrainReader:
    """Return what reads a training picture: a pure function of the file and the generator's state.

    It raises what `lib.data.transforms.open_rgb` raises, and has then drawn no random number.

    Raises:
        ValueError: see `lib.data.augmenting.changer`.
    """
    reader = {FAST: _read_fast, PILLOW: _read_with_pillow}[decoder]
    read = partial(reader, augmentation=augmentation)
    change = changer(augmentation.extras)
    return read if change is None else partial(_read_and_change, read=read, change=change)


def _read_and_change(
    picture: str | bytes, rng: random.Random, *, read: TrainReader, change: Changer
) -> PixelArray:
    return change(read(picture, rng), rng)


def _read_with_pillow(
    picture: str | bytes, rng: random.Random, *, augmentation: Augmentation
) -> PixelArray:
    return train_pixels(
        open_rgb(picture, orientation=augmentation.orientation),
        size=augmentation.size,
        rng=rng,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        hflip=augmentation.hflip,
    )


def _read_fast(
    picture: str | bytes, rng: random.Random, *, augmentation: Augmentation
) -> PixelArray:
    content = picture if isinstance(picture, bytes) else _content_of(picture)
    frame = _find_frame(content)
    if frame is None:
        return _read_with_pillow(picture, rng, augmentation=augmentation)
    turn = _Turn()
    if augmentation.orientation == EXIF:
        turn = _TURNS[read_orientation(content)]
    state = rng.getstate()
    size = turn.upright_size(frame)
    box = random_crop_box(size, rng=rng, scale=augmentation.scale, ratio=augmentation.ratio)
    try:
        crop, edges = _decode_crop(content, frame, turn.stored(box, size), size=augmentation.size)
    except ValueError:  # all that simplejpeg raises for a file
        rng.setstate(state)
        return _read_with_pillow(picture, rng, augmentation=augmentation)
    mirrored = rng.random() < augmentation.hflip
    if turn == _Turn():
        return _resized(crop, edges, augmentation.size, mirrored=mirrored)
    pixels = turn.upright(_resized(crop, edges, augmentation.size, mirrored=False))
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def _content_of(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _find_frame(content: bytes) -> _Frame | None:
    """Return what the file's header says; None for all that is left to Pillow."""
    if content[:2] != _START:
        return None
    frame, at = None, 2
    while at + 10 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _FRAMES and frame is None:
            frame = _parse_frame(content, at)
        elif marker in _FRAMES or marker in _NOT_TAKEN:
            return None
        elif marker == _SCAN:
            # Pillow calls a file without its end cut short, and this is the cheap way to know.
            return frame if content.rfind(_END) > at else None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _parse_frame(content: bytes, at: int) -> _Frame | None:
    """Return the frame whose marker stands at `at`, where it is of a usual kind and size."""
    bits, num_components = content[at + 4], content[at + 9]
    height = int.from_bytes(content[at + 5 : at + 7], "big")
    width = int.from_bytes(content[at + 7 : at + 9], "big")
    is_usual = bits == 8 and num_components in (1, 3) and width and height
    most = Image.MAX_IMAGE_PIXELS
    if not is_usual or (most is not None and width * height > most):
        return None
    return _Frame(width, height, at + 5)


def _decode_crop(
    content: bytes, frame: _Frame, box: tuple[int, int, int, int], *, size: int
) -> tuple[PixelArray, npt.NDArray[np.float64] | None]:
    """Return the crop, uint8 H x W x 3, with no side shorter than `size` by reduction.

    With it the crop's left, top, right and bottom edge within a reduced picture, where they may lie
    between two pixels; None: all of it.
    Raises ValueError where libjpeg-turbo cannot decode the file.
    """
    left, top, width, height = box
    reduction = next((r for r in _REDUCTIONS if min(width, height) >= r * size), 1)
    num_rows = min(frame.height, top + height + _CONTEXT_ROWS * reduction)
    data: bytes | bytearray = content
    if num_rows < frame.height:
        # A picture that claims to end below the crop: what follows is passed over undecoded.
        data = bytearray(content)
        data[frame.height_at : frame.height_at + 2] = num_rows.to_bytes(2, "big")
    pixels = simplejpeg.decode_jpeg(
        data,
        "RGB",
        fastdct=False,
        fastupsample=False,
        min_width=-(-frame.width // reduction),
        min_height=-(-num_rows // reduction),
        # Pillow passes libjpeg's warnings over too. That of a file cut short cannot come up here.
        strict=False,
    )
    first_row, first_column = top // reduction, left // reduction
    end_row, end_column = -(-(top + height) // reduction), -(-(left + width) // reduction)
    crop = pixels[first_row:end_row, first_column:end_column]
    if reduction == 1:
        return crop, None
    edges = np.array((left, top, left + width, top + height)) / reduction
    return crop, edges - (first_column, first_row, first_column, first_row)


def _resized(
    crop: PixelArray, edges: npt.NDArray[np.float64] | None, size: int, *, mirrored: bool
) -> PixelArray:
    """Scale with Pillow's bilinear filter, in torch where that is the faster one.

    Torch's rounds otherwise in places, by one level. It takes no edges between two pixels.
    """
    if edges is not None or torch.backends.cpu.get_cpu_capability() not in _FAST_FOR_TORCH:
        box = None if edges is None else tuple(edges.tolist())
        image = Image.fromarray(crop).resize((size, size), Image.Resampling.BILINEAR, box=box)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image)
    # A batch of one before the planes are named: torch then sees that channels come last, and both
    # reads and writes in that order. Otherwise it would sort the bytes twice.
    planes = torch.from_numpy(crop)[None].permute(0, 3, 1, 2)
    planes = functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    if mirrored:
        planes = planes.flip(3)
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())
