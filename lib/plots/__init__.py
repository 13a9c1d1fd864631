"""Pictures of a run, drawn without a display: curves, confusion matrix, contact sheet."""

from lib.plots.confusion import save_confusion
from lib.plots.curves import save_curves

__all__ = ["save_confusion", "save_curves"]
