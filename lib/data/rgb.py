"""From a picture file to 8-bit RGB: the one definition of it.

8-bit pictures become what Pillow's `convert("RGB")` makes of them, as in torchvision: transparency
is dropped, palettes and CMYK are converted, and the EXIF orientation, which says how a camera was
held, is left alone unless it is asked for. (TIFF files come upright from Pillow itself.) Of deeper
grey pictures Pillow would cut the values at 255: they are scaled by their depth here, so that white
stays white, and refused where it isn't said what white is.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lib.config.recipe import ORIENTATIONS
from lib.runtime.text import quoted

IGNORE, EXIF = ORIENTATIONS

_ORIENTATION_TAG = 0x0112
# What turns a picture upright, by the number that its EXIF data has for how it is stored.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC_TAG, _BITS_TAG, _SAMPLE_FORMAT_TAG = 262, 258, 339  # of TIFF
_PLANES_TAG, _SEPARATE = 284, 2
_WHITE_IS_ZERO, _SIGNED = 0, 2
_FORMATS_OF_16_BITS = ("PNG", "PPM", "JPEG2000")  # Pillow scales what has 9 to 15
_OF_WHOLE_NUMBERS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # Pillow converts these to nothing else

_name_in_warnings: ContextVar[str] = ContextVar("name_in_warnings", default="")
_warnings_shown_by = threading.Lock()


class _Content(io.BytesIO):
    """Pillow's messages name what it reads: a size says more than an address in memory."""

    def __repr__(self) -> str:
        return f"{len(self.getbuffer())} bytes"


def open_rgb(picture: str | Path | bytes, *, orientation: str = IGNORE) -> Image.Image:
    """Decode a file, or what one holds, and return all of it as an 8-bit RGB picture.

    Args:
        picture: a path, or the content.
        orientation: 'exif' turns the picture upright as its EXIF data say; 'ignore' does not.

    Raises:
        OSError: missing, unreadable, cut short, or not a picture.
        PIL.Image.DecompressionBombError: more than twice `PIL.Image.MAX_IMAGE_PIXELS`.
        ValueError: a deep grey picture of which it isn't known what white is.
        ValueError, SyntaxError and others: Pillow's answers to damaged headers.
    """
    name = "" if isinstance(picture, bytes) else str(picture)
    with _naming_warnings(name):
        image = Image.open(_Content(picture) if isinstance(picture, bytes) else picture)
    with image:
        image.load()
        rgb = _as_rgb(image, name)
        if orientation == EXIF:
            with _naming_warnings(name):
                turn = _TURNS.get(stored_orientation(image))
            rgb = rgb if turn is None else rgb.transpose(turn)
    return rgb


@dataclass(frozen=True)
class Head:
    """What the head of a picture's file says of it, beside the usual."""

    is_turned: bool  # by its EXIF data it isn't stored upright
    has_transparency: bool
    is_deep: bool  # grey of more than 8 bits


def read_head(path: str | Path) -> Head:
    """Return what is said without decoding a picture; raises as `open_rgb`."""
    with _naming_warnings(str(path)), Image.open(path) as image:
        # Pillow turns TIFF files itself, and would decode a PNG file to look for the data.
        may_be_turned = image.format not in ("TIFF", "PNG") or "exif" in image.info
        return Head(
            may_be_turned and stored_orientation(image) != 1,
            image.mode in _WITH_ALPHA or "transparency" in image.info,
            image.mode == "F" or image.mode in _OF_WHOLE_NUMBERS,
        )


def read_orientation(content: bytes) -> int:
    """Return `stored_orientation` of what a JPEG file holds; raises as `open_rgb`."""
    with _naming_warnings(""), Image.open(_Content(content)) as image:
        return stored_orientation(image)


def stored_orientation(image: Image.Image) -> int:
    """Return how a picture lies in its file by its EXIF data, 1 (upright) to 8; 1 where unsaid."""
    number = image.getexif().get(_ORIENTATION_TAG, 1)
    return number if number in _TURNS else 1


@contextmanager
def warnings_named(name: str) -> Iterator[None]:
    """Let what Pillow warns of in the block name a picture whose content is read, not its file."""
    token = _name_in_warnings.set(name)
    try:
        yield
    finally:
        _name_in_warnings.reset(token)


@contextmanager
def _naming_warnings(path: str) -> Iterator[None]:
    """Put the picture's name before Pillow's warnings, which don't tell it.

    One thread at a time, as Python has one function for all warnings.
    """
    name = _name_in_warnings.get() or path
    with _warnings_shown_by:
        show = warnings.showwarning

        def show_named(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: io.TextIOBase | None = None,
            line: str | None = None,
        ) -> None:
            named = f"{quoted(name)}: {message}" if name else message
            show(named, category, filename, lineno, file, line)  # type: ignore[arg-type]

        warnings.showwarning = show_named  # type: ignore[assignment]
        try:
            yield
        finally:
            warnings.showwarning = show


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return a loaded picture as 8-bit RGB: itself where it is. `name` is for warnings."""
    # Pillow would warn of a transparency that it can't convert. It is dropped here.
    image.info.pop("transparency", None)
    tags = getattr(image, "tag_v2", {})
    if _SIGNED in tags.get(_SAMPLE_FORMAT_TAG, ()):
        raise ValueError(
            "its numbers are signed, and it isn't said which of them is white: save it with "
            "unsigned ones of 8 or 16 bits"
        )
    if tags.get(_PLANES_TAG) == _SEPARATE and tags.get(_BITS_TAG, (8,))[0] > 8:
        raise ValueError("Pillow misreads deep colours in separate planes: save it interleaved")
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode in _OF_WHOLE_NUMBERS:
        grey = _of_shares(image) if image.mode == "F" else _of_whole_numbers(image, name)
        # Pillow inverts such TIFF files where they have 8 bits or fewer, and these it does not.
        is_negative = tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
        image = Image.fromarray(255 - grey if is_negative else grey)
    elif image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image.convert("RGB")


def _of_whole_numbers(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Return the upper 8 of a grey picture's bits."""
    num_bits = 16 if image.format in _FORMATS_OF_16_BITS else 0
    if image.format == "TIFF":
        num_bits = image.tag_v2[_BITS_TAG][0]  # type: ignore[attr-defined]
    values = np.asarray(image)
    if not 8 <= num_bits <= 16 or values.min() < 0 or values.max() >> num_bits:
        raise ValueError(
            f"it has grey values of {num_bits or 'unknown'} bits, {values.min()} to "
            f"{values.max()} here, and it isn't said which of them is white: save it with 8 or 16"
        )
    if num_bits == 16 and 0 < values.max() < 2**12:
        with _naming_warnings(name):
            # Python tells equal warnings once a process: the first such picture speaks for all.
            warnings.warn(
                "grey values of 16 bits, and all below 4096: nearly black. If they are of 12 bits "
                "or fewer, scale them so that white is 65535",
                stacklevel=1,
            )
    return (values >> (num_bits - 8)).astype(np.uint8)


def _of_shares(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the levels of a grey picture of floating-point numbers, 0 black and 1 white."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f"it has floating-point values of {low:g} to {high:g}, and 0 has to be black and 1 "
            "white: scale them, or save it with whole numbers of 8 or 16 bits"
        )
    return np.rint(values * np.float32(255)).astype(np.uint8)
