"""The input recipe: all that decides which numbers a network is fed for a picture.

Weights, ONNX files, prepared pictures and results record it, and whoever reads one of them
compares it with what it is about to do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from lib.runtime.checked import checked, shown

if TYPE_CHECKING:
    from yacs.config import CfgNode

# Means and standard deviations of the ImageNet training pixels in 0..1, order R, G, B.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The evaluation crop is this part of the resized short side: 224 of 256.
CROP_SHARE = 0.875

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
CHANNELS = ("RGB", "BGR")
ORIENTATIONS = ("ignore", "exif")  # what becomes of a photo's EXIF orientation
MAX_SIDE = 2**16  # in pixels; Pillow's JPEG and PNG files go no further

# The configuration's keys that an evaluation's recipe is made of.
TEST_SIZE_KEYS = ("TEST.IMAGE_SIZE", "TEST.RESIZE")
SIZE_KEYS = ("MODEL.IMAGE_SIZE", *TEST_SIZE_KEYS)
INPUT_KEYS = (*SIZE_KEYS, "DATASET.ORIENTATION")


def eval_resize(crop: int) -> int:
    """Return the short side in pixels that belongs to an evaluation crop: 256 for 224."""
    return int(crop / CROP_SHARE)


@dataclass(frozen=True)
class Recipe:
    """From a picture to the network's input, in the order of the fields.

    Two recipes are equal exactly where the preprocessing is.
    """

    orientation: str = "ignore"  # exif: turned upright first
    resize: int = 256  # the short side is scaled to so many pixels,
    crop: int = 224  # and the middle of this side is cut out
    interpolation: str = "bilinear"
    channels: str = "RGB"
    mean: tuple[float, ...] | None = IMAGENET_MEAN  # of pixels in 0..1; None: bytes are kept
    std: tuple[float, ...] | None = IMAGENET_STD
    layout: str = "CHW"
    dtype: str = "float32"

    @classmethod
    def for_crop(cls, crop: int) -> Recipe:
        """Return the usual recipe for a network that sees `crop` pixels a side."""
        return cls(resize=eval_resize(crop), crop=crop)

    @classmethod
    def from_json(cls, content: object, *, where: str) -> Recipe:
        """Return the recipe that a file holds; what it leaves out is the usual.

        `where` names the file, and the entry, in the ValueError for anything that is no recipe.
        """
        found = checked(content, _FORM, where=where)
        unknown = [key for key in found if f"{key}?" not in _FORM]
        if unknown:
            raise ValueError(
                f"{where}: this program knows no {shown(unknown[0])} of a recipe; it knows "
                f"{', '.join(key.rstrip('?') for key in _FORM)}"
            )
        if any(deviation <= 0 for deviation in found.get("std") or ()):
            raise ValueError(f"{where}: std is {shown(found['std'])}; it must be above 0")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        usual = cls.for_crop(found.get("crop", cls.crop))
        return replace(usual, **values)  # type: ignore[arg-type]  # checked above

    def as_json(self) -> dict[str, object]:
        """Return the fields in the types that JSON has."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def differences(self, other: Recipe) -> tuple[str, ...]:
        """Return a text for each field that differs: `resize 64 for 72`, the other's last."""
        ours, theirs = self.as_json(), other.as_json()
        return tuple(
            f"{key} {_said(ours[key])} for {_said(theirs[key])}"
            for key in ours
            if ours[key] != theirs[key]
        )

    def __str__(self) -> str:
        parts = [f"{self.crop} x {self.crop} of a short side of {self.resize}", self.interpolation]
        if (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
            parts.append(f"mean {_said(self.mean)}, std {_said(self.std)}")
        parts += [self.channels] if self.channels != "RGB" else []
        parts += ["upright by EXIF"] if self.orientation == "exif" else []
        return ", ".join(parts)


def _said(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(f"{number:g}" for number in value)
    return "none" if value is None else str(value)


USUAL = Recipe()


def eval_recipe(config: CfgNode) -> Recipe:
    """Return the recipe of evaluation, prediction and export: training's sizes, or TEST's own."""
    crop = config.TEST.IMAGE_SIZE or config.MODEL.IMAGE_SIZE[0]
    return Recipe(
        orientation=config.DATASET.ORIENTATION,
        resize=config.TEST.RESIZE or eval_resize(crop),
        crop=crop,
    )


_SIDE = range(1, MAX_SIDE + 1)
_THREE_OR_NONE = ([float, float, float], None)
_FORM = {
    "orientation?": ORIENTATIONS,
    "resize?": _SIDE,
    "crop?": _SIDE,
    "interpolation?": INTERPOLATIONS,
    "channels?": CHANNELS,
    "mean?": _THREE_OR_NONE,
    "std?": _THREE_OR_NONE,
    "layout?": ("CHW", "HWC"),
    "dtype?": ("float32", "float16", "uint8"),
}
