"""Pictures of a run, drawn without a display: curves, confusion matrix, contact sheet, reliability.

`curves` and `confusion` draw for PNG files and for the page of a run alike; `palette` has the
colours of all, `text` their fonts, `svg` what goes into a page.
"""

from lib.plots.confusion import save_confusion
from lib.plots.curves import save_curves
from lib.plots.sheet import Heat, Tile, save_sheet

__all__ = ["Heat", "Tile", "save_confusion", "save_curves", "save_sheet"]
