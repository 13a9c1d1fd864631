"""Pictures of a run, drawn without a display: curves, confusion matrix, contact sheet."""

from lib.plots.confusion import save_confusion
from lib.plots.curves import save_curves
from lib.plots.sheet import Tile, save_sheet

__all__ = ["Tile", "save_confusion", "save_curves", "save_sheet"]
