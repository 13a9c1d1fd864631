"""The report of a training run: one html file that needs nothing beside it, and no network.

`kept`: what the best weights predicted, kept in the run folder; `surroundings`: what the run
computed with; `reading`: what a run folder holds. `charts`, `classes` and `mistakes` make its
parts, `page` the whole of them, by template.html and style.css.
"""

from lib.report.kept import KeptPredictions, keep_predictions, read_predictions
from lib.report.mistakes import Pictures, find_pictures
from lib.report.page import write_report
from lib.report.reading import RunFiles, read_run
from lib.report.surroundings import surroundings

__all__ = [
    "KeptPredictions",
    "Pictures",
    "RunFiles",
    "find_pictures",
    "keep_predictions",
    "read_predictions",
    "read_run",
    "surroundings",
    "write_report",
]
