"""The page: what a run folder holds, put into template.html."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.report.classes import ClassFigures, means_of
from lib.report.mistakes import Pictures, num_mistakes, surest_mistakes
from lib.report.plots.curves import curve_charts
from lib.report.plots.points import Record, curves_of
from lib.report.run_files import RunFiles
from lib.report.settings import settings_of
from lib.runtime.files import write_atomically
from lib.runtime.run_folder import REPORT
from lib.runtime.text import counted, duration, printable

MAX_ROWS = 1000  # of a table: a page of more is slow on a phone
_SEPARATOR = re.compile(r"(?<=[/\\_.-])(?=[^/\\_.-])")
_NO_CHARACTERS = re.compile("[\ufffe\uffff]")
_FIGURE_ROWS = (  # name, key of metrics.jsonl, digits
    ("training loss", "train_loss", 4),
    ("validation loss", "val_loss", 4),
    ("training top-1", "train_accuracy_top1", 2),
    ("validation top-1", "val_accuracy_top1", 2),
    ("validation top-5", "val_accuracy_top5", 2),
)


@dataclass(frozen=True)
class Figure:
    """A number that stands at the top of the page."""

    name: str
    value: str
    note: str = ""


def write_report(run: RunFiles, pictures: Pictures | None) -> Path:
    """Write report.html into the run folder and return its path; `pictures` may be gone.

    Raises OSError.
    """
    path = run.folder / REPORT
    write_atomically(render(run, pictures).encode(), path)
    return path


def render(run: RunFiles, pictures: Pictures | None) -> str:
    """Return the page. Whatever a name holds, it is text there, and it can be encoded."""
    classes = ClassFigures(run.kept.predictions, run.class_names) if run.kept else None
    rows = classes.rows() if classes else []
    settings, num_classes = settings_of(run), len(run.class_names)
    curves = curves_of(run.records, schedule=settings.schedule, num_classes=num_classes)
    return _template().render(
        run=run,
        name=run.folder.resolve().name,
        settings=settings,
        figures=_figures(run),
        best_and_last=_best_and_last(run),
        figure_rows=[row for row in _FIGURE_ROWS if num_classes > 5 or "top5" not in row[1]],
        charts=curve_charts(curves),
        rows=rows[:MAX_ROWS],
        num_rows=len(rows),
        means=means_of(rows),
        largest=max(rows, key=lambda row: row.num_images, default=None),
        matrix=classes.matrix(_shown) if classes else None,
        confusions=classes.confusions() if classes else [],
        mistakes=surest_mistakes(run.kept, run.class_names, pictures) if run.kept else [],
        num_mistakes=num_mistakes(run.kept) if run.kept else 0,
        bad_images=run.bad_images[:MAX_ROWS],
        made_at=time.strftime("%Y-%m-%d %H:%M"),
    )


@cache
def _template():  # type: ignore[no-untyped-def]  # jinja2.Template, private to this file
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda x: printable(x, keep="\n\t") if type(x) is str else x,
    )
    environment.filters |= {"number": _number, "parts": _parts, "counted": _counted}
    return environment.get_template("template.html")


def _number(value: object, digits: int = 3) -> str:
    """Return a figure of a record, or a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _shown(name: str) -> str:
    """Return a name as a picture can hold it: XML has no place for some of its characters."""
    return _NO_CHARACTERS.sub("\ufffd", printable(name))


def _counted(number: int, noun: str, plural: str = "") -> str:
    return counted(number, noun, plural).replace(str(number), f"{number:,}", 1)


def _parts(path: str) -> list[str]:
    """Return the parts of a path: behind its separators it may go on in another line."""
    return _SEPARATOR.split(path)


def _figures(run: RunFiles) -> list[Figure]:
    result, epochs = run.result, run.epochs
    by_epoch: dict[object, Record] = {record["epoch"]: record for record in epochs}
    best = by_epoch.get(run.best_epoch, {})
    figures = []
    if best:
        after = f"best, after {_epochs(best)}; by chance {100 / len(run.class_names):.2f} %"
        figures.append(Figure("Top-1", f"{_number(best.get('val_accuracy_top1'), 2)} %", after))
        if len(run.class_names) > 5:
            top5 = f"{_number(best.get('val_accuracy_top5'), 2)} %"
            figures.append(Figure("Top-5", top5, "same weights"))
        figures.append(Figure("Validation loss", _number(best.get("val_loss"), 4), "same weights"))
    if isinstance(result.get("num_train_images"), int):
        num_val = _number(result.get("num_images_expected"))
        figures.append(
            Figure("Images", _number(result["num_train_images"]), f"and {num_val} to validate")
        )
    if epochs:
        images_per_s = result.get("images_per_s", epochs[-1].get("images_per_s"))
        figures.append(Figure("Speed", f"{_number(images_per_s, 0)}/s", "images in training"))
    duration_s = result.get("duration_s")
    if isinstance(duration_s, int | float):
        figures.append(Figure("Duration", duration(duration_s), "since the last start"))
    return figures


def _best_and_last(run: RunFiles) -> list[tuple[str, Record]]:
    best = [record for record in run.epochs if record["epoch"] == run.best_epoch]
    return [*(("best", r) for r in best[-1:]), *(("last", r) for r in run.epochs[-1:])]


def _epochs(record: Record) -> str:
    return counted(int(record["epoch"]) + 1, "epoch")  # type: ignore[call-overload]
