"""The contact sheet of a prediction: the first pictures, and what speaks for their class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_box
from lib.evaluation.forward import ForwardPass
from lib.evaluation.predict import cam
from lib.evaluation.predict.writing import Row
from lib.report.plots.sheet import Heat, Tile, save_sheet
from lib.runtime.text import printable

NUM_TILES = 60
_SIDE = 480  # pixels of a tile's longer side at most: twice what it has on paper
_BATCH = 16  # gradients need memory


class Sheet:
    """Takes pictures with their rows as they come, and draws the first of them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._pixels: list[torch.Tensor] = []  # uint8 H x W x 3, as the network was fed
        self._rows: list[Row] = []

    def add(self, pixels: torch.Tensor, row: Row) -> None:
        """Add a picture that has a class; past the first ones nothing happens."""
        if len(self._rows) < NUM_TILES:
            self._pixels.append(pixels.clone())
            self._rows.append(row)

    def save(
        self, path: Path, network: nn.Module, forward_pass: ForwardPass, *, num_all: int,
        layer: str | None,
    ) -> str:  # fmt: skip
        """Draw what was added, with the activation maps of `layer` unless it is None.

        Returns a warning on names that cannot be drawn; '' where there are none. Raises OSError.
        """
        maps = self._maps(network, forward_pass, layer) if layer else [None] * len(self._rows)
        tiles = [
            self.tile(pixels, row, heat)
            for pixels, row, heat in zip(self._pixels, self._rows, maps, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_sheet(tiles, path, num_all=num_all)

    def tile(self, fed: torch.Tensor, row: Row, heat: np.ndarray | None) -> Tile:
        """Return a picture of the sheet; `fed` is what the network saw of it."""
        best = row.guesses[0]
        pixels, box = self._picture(row.path, fed)
        return Tile(
            pixels,
            Path(printable(row.path)).name,
            printable(best.name),
            best.index,
            best.probability,
            None if heat is None else Heat(heat, box),
        )

    def _picture(
        self, path: str, fed: torch.Tensor
    ) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """Return a picture, made smaller, and where in it the network's input lies.

        It is that input itself where the file can no longer be read.
        """
        try:
            image = open_rgb(path, orientation=self._recipe.orientation)
        except Exception:  # Pillow's answers to damaged files have no common base
            return fed.numpy(), (0, 0, self._recipe.crop, self._recipe.crop)
        box = eval_box(image.size, self._recipe)
        width = image.width
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        left, top, right, bottom = (place * image.width / width for place in box)
        return np.asarray(image), (left, top, right, bottom)

    def _maps(self, network: nn.Module, forward_pass: ForwardPass, layer: str) -> list[np.ndarray]:
        """Return the activation map of each picture for its likeliest class."""
        maps: list[np.ndarray] = []
        device = forward_pass.processes.device
        for begin in range(0, len(self._rows), _BATCH):
            part = slice(begin, begin + _BATCH)
            images = forward_pass.normalize(torch.stack(self._pixels[part]).to(device))
            classes = torch.tensor([row.guesses[0].index for row in self._rows[part]])
            maps.extend(cam.class_activations(network, images, classes.to(device), layer=layer))
        return maps
