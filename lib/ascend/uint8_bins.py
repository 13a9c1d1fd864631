"""Pictures for an .om with AIPP, which normalises by itself: uint8 files, rows of RGB pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from lib.ascend.aipp import uint8_size
from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import PixelArray, eval_pixels
from lib.offline.preprocess import MODEL, PreprocessOptions, PreprocessReport, fill
from lib.offline.preprocess_record import Target
from lib.runtime.cli import PartlyFailed
from lib.runtime.text import printable, quoted, shorten


def uint8_recipe(side: int) -> Recipe:
    """Return the recipe without mean and standard deviation: AIPP takes them off."""
    usual = Recipe.for_crop(side)
    return replace(usual, crop=uint8_size(side), mean=None, std=None, layout="HWC", dtype="uint8")


def write_uint8_bins(
    source: Path, target: Path, *, side: int, num_workers: int = 0
) -> PreprocessReport:
    """Write `<stem>.bin` (uint8, H x W x 3) of each picture under `source`.

    Cutting `crop_margin` pixels off each side gives exactly what `lib.data.transforms` gives for
    `side`. `num_workers` counts processes; 0: as many as cores.

    Raises what `preprocess` raises, and PartlyFailed where a picture could not be read.
    """
    results = Target(target, source, MODEL, uint8_recipe(side), 3 * uint8_size(side) ** 2)
    options = PreprocessOptions(num_workers=num_workers)
    report = fill(results, partial(_file_of, side=side), options)
    num_pictures = report.num_already_there + report.num_written + len(report.failed)
    if report.failed:
        named = [f"{quoted(path)} ({reason})" for path, reason in report.failed.items()]
        raise PartlyFailed(
            f"{len(report.failed)} of {num_pictures} pictures not read: "
            f"{shorten(named, form=printable)}"
        )
    return report


def _file_of(path: str, *, side: int) -> PixelArray:
    return eval_pixels(open_rgb(path), uint8_recipe(side))
