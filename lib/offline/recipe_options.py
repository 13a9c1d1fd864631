"""The input recipe as options: for a network that was trained on otherwise prepared pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.config.recipe import CHANNELS, INTERPOLATIONS, ORIENTATIONS, Recipe
from lib.export.onnx_metadata import load_model, metadata_of, recipe_of
from lib.runtime.checked import read_json
from lib.runtime.cli import ArgumentParser

_MAX_MEAN = 1.0  # of pixels in 0..1
OPTIONS = "--recipe, --resize, --crop_share, --mean, --std, --interpolation, --channels"


def add_recipe_options(parser: ArgumentParser) -> None:
    """Add what `asked_recipe` reads."""
    group = parser.add_argument_group("how pictures are prepared")
    add = group.add_argument
    add(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="JSON file with fields of a recipe, a preprocess.json, or an ONNX file that records "
        "one; the options below go before it",
    )
    sizes = group.add_mutually_exclusive_group()
    sizes.add_argument("--resize", type=int, help="short side in pixels before the centre crop")
    sizes.add_argument(
        "--crop_share", type=float, help="the crop's share of that side; usual is 0.875"
    )
    for name in ("mean", "std"):
        add(f"--{name}", type=float, nargs=3, metavar="X", help="of pixels in 0..1, a channel each")
    add("--interpolation", choices=INTERPOLATIONS, help="of the resize; usual is bilinear")
    add("--channels", choices=CHANNELS, help="order of the planes, of mean and of std")
    add("--orientation", choices=ORIENTATIONS, help="exif: turn photos upright first")


@dataclass(frozen=True)
class AskedRecipe:
    """What a command line says of a recipe; the rest is the usual."""

    base: Recipe | None = None  # that of --recipe
    changes: Mapping[str, object] = field(default_factory=dict)  # fields by the other options
    crop_share: float | None = None

    def for_crop(self, crop: int | None) -> Recipe:
        """Return the recipe for pictures of `crop` pixels; None: --recipe's, or the usual.

        Raises ValueError where --recipe is for another crop, or a value is impossible.
        """
        found = self.base or Recipe.for_crop(crop or Recipe.crop)
        if crop is not None and found.crop != crop:
            raise ValueError(f"--recipe is for {found.crop} pixels a side, and {crop} are wanted")
        changes = dict(self.changes)
        if self.crop_share is not None:
            changes["resize"] = int(found.crop / self.crop_share)
        recipe = Recipe.from_json(found.as_json() | changes, where="the recipe's options")
        if recipe.resize < recipe.crop:
            raise ValueError(
                f"the short side of {recipe.resize} pixels is below the crop's {recipe.crop}, and "
                "a black border would be added: give --resize the crop's size or more"
            )
        if any(abs(mean) > _MAX_MEAN for mean in recipe.mean or ()):
            raise ValueError(
                f"mean {' '.join(f'{mean:g}' for mean in recipe.mean or ())}: of pixels in 0..1; "
                "divide mean and std by 255 where they are of pixels in 0..255"
            )
        return recipe


def asked_recipe(args: argparse.Namespace) -> AskedRecipe | None:
    """Return what the options of `add_recipe_options` say; None: nothing.

    Raises OSError, and ValueError for a file without a recipe or an impossible share of the crop.
    """
    single = ("resize", "mean", "std", "interpolation", "channels", "orientation")
    changes = {name: getattr(args, name) for name in single if getattr(args, name) is not None}
    if args.recipe is None and args.crop_share is None and not changes:
        return None
    if args.crop_share is not None and not 0 < args.crop_share <= 1:
        raise ValueError(f"--crop_share {args.crop_share}: a number above 0 and up to 1")
    base = None if args.recipe is None else _read(args.recipe)
    return AskedRecipe(base, changes, args.crop_share)


def _read(path: Path) -> Recipe:
    if path.suffix == ".onnx":
        return recipe_of(metadata_of(load_model(path)), path)
    content = read_json(path, {str: object})
    return Recipe.from_json(content.get("recipe", content), where=str(path))
