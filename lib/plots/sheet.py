"""A contact sheet: pictures side by side with what they were taken for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lib.plots.text import labels_of, plain_text, save

_MAX_COLUMNS = 6
_TILE_INCHES = (2.1, 2.55)  # two lines of text above the picture
_HEAT_OPACITY = 0.55


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet."""

    pixels: np.ndarray  # uint8 H x W x 3
    name: str
    class_name: str
    probability: float
    heat: np.ndarray | None = None  # H x W, 0..1: drawn over it


def save_sheet(tiles: Sequence[Tile], path: Path, *, num_all: int) -> None:
    """Draw the tiles as a PNG; `num_all` pictures there were in all. Raises OSError."""
    names = labels_of([tile.name for tile in tiles], len(tiles))
    classes = labels_of([tile.class_name for tile in tiles], len(tiles))
    columns = max(1, min(_MAX_COLUMNS, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    with plain_text(*dict.fromkeys((*names.fonts, *classes.fonts))):
        width, height = _TILE_INCHES
        figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for number, tile in enumerate(tiles):
            axes = grid.flat[number]
            axes.imshow(tile.pixels)
            if tile.heat is not None:
                # See-through where nothing speaks for the class.
                axes.imshow(tile.heat, cmap="inferno", vmin=0, vmax=1, alpha=_opacity(tile.heat))
            said = f"{classes.texts[number]}  {tile.probability:.1%}"
            axes.set_title(f"{said}\n{names.texts[number]}", fontsize=8, loc="left")
        shown = f"{len(tiles)} of {num_all}" if len(tiles) < num_all else f"{num_all}"
        figure.suptitle(f"{shown} picture{'' if num_all == 1 else 's'}", fontsize=9)
        save(figure, path)


def _opacity(heat: np.ndarray) -> np.ndarray:
    return _HEAT_OPACITY * np.sqrt(heat)
