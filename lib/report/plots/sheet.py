"""A contact sheet: pictures side by side with what they were taken for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.report.plots.text import labels_of, plain_text, save, shortened, undrawn_remark

_MAX_COLUMNS = 6
_TILE_INCHES = (2.1, 2.55)  # two lines of text above the picture
_TILE_COLUMNS = 28  # of characters in a line above a tile
_HEAT_OPACITY = 0.6
_COLOURS = "inferno"  # as bright as they are strong, to every eye

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Heat:
    """What speaks for the class: a map of 0..1 and where it lies, in pixels of the picture."""

    map: np.ndarray  # H x W
    box: Box  # what the network was fed


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet."""

    pixels: np.ndarray  # uint8 H x W x 3
    name: str
    class_name: str
    class_number: int
    probability: float
    heat: Heat | None = None  # drawn over the picture, beside it


def save_sheet(tiles: Sequence[Tile], path: Path, *, num_all: int) -> str:
    """Draw the tiles as a PNG; `num_all` pictures there were in all.

    A class whose name cannot be drawn is its number, `#3`, a file its place, `picture 1`. Returns
    a warning where there are such; '' where there are none. Raises OSError.
    """
    numbers = [f"picture {place}" for place in range(1, len(tiles) + 1)]
    names = labels_of([shortened(tile.name, _TILE_COLUMNS) for tile in tiles], numbers)
    texts = [shortened(tile.class_name, _TILE_COLUMNS - 8) for tile in tiles]
    classes = labels_of(texts, [f"#{tile.class_number}" for tile in tiles])
    width, height = _TILE_INCHES
    per_tile = 2 if any(tile.heat for tile in tiles) else 1
    columns = max(1, min(_MAX_COLUMNS // per_tile, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    with plain_text(*dict.fromkeys((*names.fonts, *classes.fonts))):
        size = (width * per_tile * columns + 0.8 * (per_tile - 1), height * rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns * per_tile, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
            axes.set_anchor("NW")  # texts of a row stand in one line
        for number, tile in enumerate(tiles):
            axes = grid.flat[number * per_tile]
            axes.imshow(tile.pixels)
            said = f"{classes.texts[number]}  {100 * tile.probability:.1f} %"
            axes.set_title(f"{said}\n{names.texts[number]}", fontsize=8, loc="left")
            if tile.heat is not None:
                _draw_heat(grid.flat[number * per_tile + 1], tile.pixels, tile.heat)
        if per_tile == 2:
            mappable = ScalarMappable(Normalize(0, 1), _COLOURS)
            bar = figure.colorbar(mappable, ax=grid, aspect=40, fraction=0.03)
            bar.set_ticks([0, 1], labels=["nothing", "most"], fontsize=8)
            bar.set_label(
                "what speaks for the class, most: a picture's strongest place", fontsize=8
            )
        shown = f"{len(tiles)} of {num_all:,}" if len(tiles) < num_all else f"{num_all:,}"
        figure.suptitle(f"{shown} picture{'' if num_all == 1 else 's'}", fontsize=9)
        save(figure, path)
    return undrawn_remark(names.num_undrawn + classes.num_undrawn)


def _draw_heat(axes: Axes, pixels: np.ndarray, heat: Heat) -> None:
    """Draw the map over the picture, see-through where nothing speaks for the class."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = heat.box
    axes.imshow(pixels)
    axes.imshow(
        heat.map, cmap=_COLOURS, vmin=0, vmax=1, alpha=_HEAT_OPACITY * np.sqrt(heat.map),
        extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5),
    )  # fmt: skip
    frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False)
    frame.set(edgecolor="white", linewidth=1, linestyle="--")
    axes.add_patch(frame)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
