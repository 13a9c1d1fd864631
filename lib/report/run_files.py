"""What a run folder holds, read for its report; a run that was stopped has less of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.class_file import read_class_file
from lib.metrics.predictions_file import SavedPredictions, read_predictions
from lib.report.log import read_records
from lib.report.plots.points import Record
from lib.runtime import run_folder
from lib.runtime.checked import COUNT, read_json
from lib.runtime.text import one_line

# What a report needs of a result.json, of a run that has ended.
_RESULT = {
    "kind?": str, "best_epoch?": (COUNT, None), "num_train_images?": COUNT,
    "num_images_expected?": COUNT, "duration_s?": float, "network?": str, "config?": str,
}  # fmt: skip


@dataclass(frozen=True)
class RunFiles:
    """The readable files of a run folder. What the run has not written is empty, or None."""

    folder: Path
    config: str  # yaml
    class_names: tuple[str, ...]
    records: Sequence[Record]  # metrics.jsonl
    result: Mapping[str, object]  # result.json, of a run that has ended
    environment: Mapping[str, str]
    bad_images: Sequence[tuple[str, str]]  # path and reason of each
    kept: SavedPredictions | None  # of the best weights
    why_none_kept: str  # where it is None
    left_out: Sequence[str] = ()  # lines of the files that cannot be used, and why

    @property
    def epochs(self) -> list[Record]:
        """The lines of metrics.jsonl that end an epoch."""
        return [record for record in self.records if record["kind"] == "epoch"]

    @property
    def best_epoch(self) -> int | None:
        """The epoch after which model_best.pth.tar was written; None before the first."""
        return _best_epoch(self.result, self.epochs)


def read_run(folder: Path) -> RunFiles:
    """Return what a training run has left in its folder.

    Predictions that cannot be read are as if they were not there. Raises FileNotFoundError where it
    is no run folder, ValueError for a performance run's, for another damaged file, and for fewer
    class names than were predicted.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such run folder: {folder}")
    for name in (run_folder.CONFIG, run_folder.CLASSES, run_folder.METRICS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: give the folder that a run of tools/train.py wrote to"
            )
    result = _json(folder / run_folder.RESULT, _RESULT)
    if result.get("kind") == "performance":
        raise ValueError(f"{folder} is of a performance run, which has nothing to report")
    records, left_out = read_records(folder / run_folder.METRICS)
    epochs = [record for record in records if record["kind"] == "epoch"]
    class_names = read_class_file(folder / run_folder.CLASSES)
    kept, why_none = _kept(folder, _best_epoch(result, epochs))
    if kept is not None and kept.predictions.num_classes_met > len(class_names):
        raise ValueError(
            f"{folder / run_folder.CLASSES} has {len(class_names)} class names, and "
            f"{run_folder.PREDICTIONS} beside it is of {kept.predictions.num_classes_met} classes "
            "or more: put the run's own there"
        )
    bad_images, no_bad_images = _bad_images(folder / run_folder.BAD_IMAGES)
    return RunFiles(
        folder=folder,
        config=(folder / run_folder.CONFIG).read_text(encoding="utf-8", errors="replace"),
        class_names=class_names,
        records=records,
        result=result,
        environment=_json(folder / run_folder.ENVIRONMENT, {str: str}),
        bad_images=bad_images,
        kept=kept,
        why_none_kept=why_none,
        left_out=[*left_out, *no_bad_images],
    )


def _kept(folder: Path, best_epoch: int | None) -> tuple[SavedPredictions | None, str]:
    """Return the predictions of the best weights, or why there are none that can be used."""
    path = folder / run_folder.PREDICTIONS
    if best_epoch is None:
        return None, "nothing was evaluated yet"
    if not path.is_file():
        return None, f"{path.name} is not there"
    try:
        kept = read_predictions(path)
    except ValueError as error:  # they can be made again
        return None, one_line(error)
    if kept.epoch != best_epoch:  # a full disk, say, let the weights through and not these
        return None, f"{path.name} is not of the best weights"
    return kept, ""


def _best_epoch(result: Mapping[str, object], epochs: Sequence[Record]) -> int | None:
    if isinstance(result.get("best_epoch"), int):
        return result["best_epoch"]  # type: ignore[return-value]
    # As training keeps them: the first of those that are equal.
    best = max(epochs, key=_val_accuracy, default=None)
    return None if best is None else best["epoch"]  # type: ignore[return-value]


def _val_accuracy(record: Record) -> float:
    accuracy = record.get("val_accuracy_top1")
    return accuracy if isinstance(accuracy, int | float) else 0.0


def _json(path: Path, form: dict) -> dict:
    """Return a file's mapping; an empty one where there is no file."""
    return read_json(path, form) if path.exists() else {}


def _bad_images(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return path and reason of each bad picture, and what is said of lines that are neither."""
    if not path.is_file():
        return [], []
    lines = path.read_bytes().decode("utf-8", errors="surrogateescape").split("\n")
    fields = [(number, *line.partition("\t")) for number, line in enumerate(lines, 1) if line]
    return (
        [(name, reason) for _, name, tab, reason in fields if tab],
        [f"{path} line {number}: it has no tab" for number, _, tab, _ in fields if not tab],
    )
