"""The report of a run, and the predictions that it is made of."""

from __future__ import annotations

from lib.metrics.per_class import write_per_class
from lib.metrics.predictions import Predictions
from lib.metrics.predictions_file import save_predictions
from lib.report.mistakes import Pictures
from lib.report.page import write_report
from lib.report.plots.confusion import save_confusion
from lib.report.run_files import read_run
from lib.runtime import run_folder
from lib.runtime.text import one_line
from lib.training.build import TrainingSetup
from lib.training.run_console import RunConsole
from lib.training.run_writer import RunWriter
from lib.training.start import TrainRequest


def save_run_predictions(
    setup: TrainingSetup,
    request: TrainRequest,
    writer: RunWriter,
    predictions: Predictions | None,
    *,
    epoch: int,
) -> None:
    """Write what the best weights so far predicted; `predictions` is None without any picture."""
    if predictions is not None:
        path = request.folder / run_folder.PREDICTIONS
        images, data_path = setup.data.val_images, request.data_path
        writer.write_or_warn(
            run_folder.PREDICTIONS,
            lambda: save_predictions(
                predictions, path, images=images, data_path=data_path, epoch=epoch
            ),
        )


def write_run_report(setup: TrainingSetup, request: TrainRequest, console: RunConsole) -> None:
    """Make report.html, per_class.csv and confusion.png; they may fail, the run has not."""
    folder = request.folder
    orientation = setup.config.DATASET.ORIENTATION
    pictures = Pictures(setup.data.val_images, request.data_path, orientation)
    try:
        run = read_run(folder)
        if run.kept is not None:
            names = run.class_names
            confusion = run.kept.predictions.confusion(len(names))
            write_per_class(confusion, names, folder / run_folder.PER_CLASS)
            if remark := save_confusion(confusion, names, folder / run_folder.CONFUSION):
                console.say(f"[Warning] {remark}")
        path = write_report(run, pictures)
    # All that it is made of is in the run folder, and can be made a page again.
    except Exception as error:
        reason = one_line(error, with_type=True)
        console.say(
            f"[Warning] {run_folder.REPORT} could not be made ({reason}); once that is "
            f"mended, python tools/report.py {folder} makes it"
        )
    else:
        console.say(f"the report is {path}")
