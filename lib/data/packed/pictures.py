"""From a picture to what a shard holds of it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lib.data.picture_files import JPEG_SUFFIXES
from lib.data.rgb import open_rgb, warnings_named
from lib.data.transforms import resize_short_side
from lib.runtime.text import one_line

_JPEG = "jpg"
_MAX_STEM = 60  # of the characters that a tar header has for a name


@dataclass(frozen=True, slots=True)  # there may be millions
class Picture:
    """A picture to pack."""

    path: str
    number: int  # its place in the list
    target: int
    num_bytes: int
    mtime_ns: int

    @property
    def key(self) -> str:
        """Its name in a shard, without an ending: unique, and it tells the file's name.

        WebDataset takes the first dot for the end of the key.
        """
        stem = os.path.splitext(os.path.basename(self.path))[0]
        return f"{self.number:08}_{re.sub(r'[^A-Za-z0-9_-]', '_', stem)[:_MAX_STEM]}"


@dataclass(frozen=True)
class Packed:
    """What a shard is to hold of a picture, or why it can't be read."""

    picture: Picture
    content: bytes
    ending: str
    failure: str = ""


def prepare(
    pictures: Sequence[Picture], *, resize: int | None, quality: int, orientation: str
) -> list[Packed]:
    """Return what is to be packed of each picture; runs in a worker.

    Args:
        pictures: some.
        resize: short side in pixels of those that are larger, which become JPEG files; what is not
            larger is taken as it is. None: all are, and none is decoded.
        quality: of those JPEG files.
        orientation: of those; what is taken as it is keeps what it says of it.
    """
    return [_prepared(picture, resize, quality, orientation) for picture in pictures]


def _prepared(picture: Picture, resize: int | None, quality: int, orientation: str) -> Packed:
    try:
        with open(picture.path, "rb", buffering=0) as file:
            content = file.readall()
        if resize is None:
            return Packed(picture, content, _ending(picture.path))
        with warnings_named(picture.path):
            image = open_rgb(content, orientation=orientation)
        if min(image.size) <= resize:
            return Packed(picture, content, _ending(picture.path))
        return Packed(picture, _as_jpeg(resize_short_side(image, resize), quality), _JPEG)
    # Damaged files make Pillow raise nearly anything. Each case is reported.
    except Exception as error:
        return Packed(picture, b"", "", one_line(error, with_type=True))


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _ending(path: str) -> str:
    ending = os.path.splitext(path)[1].lower()
    return _JPEG if ending in JPEG_SUFFIXES else ending.removeprefix(".")
