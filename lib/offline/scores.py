"""From a folder of predictions and a label file to accuracies, or to what is wrong with them.

A score over a set that isn't whole means nothing, so it isn't computed unless asked for.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.data.label_file import LABEL_FORM, read_label_lines
from lib.data.picture_files import picture_stem
from lib.metrics.confusion import ConfusionCounts
from lib.offline.copies import Copies, without_copies
from lib.offline.element_type import USUAL
from lib.offline.label_order import better_label_order, could_not_tell
from lib.offline.prediction_files import prediction_names, stem_of
from lib.offline.ranking import FileForm, Indices, find_form, rank_files
from lib.runtime.cli import needing
from lib.runtime.files import write_atomically
from lib.runtime.text import look_alikes, printable, quoted, shorten

# TensorFlow's networks for ImageNet have a background class in front of the thousand.
_OUTPUTS_WITH_BACKGROUND = 1001
_MISSING, _EXTRA, _DOUBLE = "missing", "without a label", "second ones of a picture"
_DIFFERING = "that differ from another device's"
_OF_TWO = (_DOUBLE, _DIFFERING)  # whose entries are two names
_MANY_TIES = 0.01  # of the predictions; in float16 a few are usual
_UNKNOWN = FileForm()
_ON_WILD_VALUES = (
    "the .bin files' values differ by so many powers of ten that they hardly are a network's "
    "outputs: give another element type with --dtype; numbers in big-endian order are not read"
)


@dataclass(frozen=True)
class Scores:
    """What the predictions are worth; the arrays have a place for each that was scored."""

    form: FileForm  # the number of outputs, and the element type of .bin files
    labels: Indices  # as in the label file
    ranks: Indices  # how many outputs come before the right one; equal ones do
    answers: Indices  # the output that comes first, numbered as the labels
    num_first: Indices  # how many outputs share the first place
    problems: Mapping[str, Sequence[str]]  # kind: names of predictions or pictures
    advice: str  # on labels that are numbered otherwise than the outputs; most often empty
    num_copies: int  # predictions that several devices made, beyond the first of each

    @property
    def num_outputs(self) -> int:
        """Outputs of the network."""
        return self.form.num_outputs

    @property
    def num_images(self) -> int:
        """How many predictions were scored."""
        return len(self.labels)

    @property
    def num_ties(self) -> int:
        """How many predictions have several outputs in the first place."""
        return int(np.count_nonzero(self.num_first > 1))

    def num_hits(self, place: int) -> int:
        """How many right classes are among the first `place` outputs."""
        return int(np.count_nonzero(self.ranks < place))

    def accuracy(self, place: int) -> float:
        """The same in percent."""
        return self.num_hits(place) / self.num_images * 100

    def problem_lines(self) -> list[str]:
        """A phrase for each kind of problem: how many, and the first few names."""
        lines = [
            f"{len(names)} {kind}: {shorten(names, form=printable if kind in _OF_TWO else quoted)}"
            for kind, names in self.problems.items()
        ]
        unlabelled = map(stem_of, self.problems.get(_EXTRA, ()))
        remark = look_alikes(self.problems.get(_MISSING, ()), unlabelled)
        return [*lines, remark.removeprefix("; ")] if remark else lines

    def warnings(self) -> list[str]:
        """What makes the score doubtful, a sentence each."""
        on_values = _ON_WILD_VALUES if self.form.is_wild else ""
        found = (self.advice, self._on_ties(), self._on_one_answer(), on_values)
        return [said for said in found if said]

    def _on_ties(self) -> str:
        if self.num_ties <= _MANY_TIES * self.num_images:
            return ""
        num_flat = int(np.count_nonzero(self.num_first == self.num_outputs))
        flat = f"; in {num_flat} of them all outputs are equal" if num_flat else ""
        return (
            f"{self.num_ties} of {self.num_images} predictions have several highest outputs, which "
            f"counts as wrong{flat}: the network has collapsed, or the files are not its outputs"
        )

    def _on_one_answer(self) -> str:
        answers = np.unique(self.answers)
        if len(answers) > 1 or len(np.unique(self.labels)) < 2:
            return ""
        return (
            f"all {self.num_images} predictions are of class {answers[0]}: the network has "
            "collapsed, or its input was no picture"
        )


def score_folder(
    folder: Path, label_file: Path, *, known: FileForm = _UNKNOWN, num_workers: int | None = None
) -> Scores:
    """Read and rank every prediction of a folder.

    With 1001 outputs the labels are one higher. What several devices computed alike counts once.
    What is wrong with single predictions is told in `problems`, and these are left out.
    `known` is what is given of the files' form; `num_workers` counts the processes that read, None:
    as it pays.

    Raises FileNotFoundError where the folder or the file is missing, or has nothing; ValueError for
    a mistake in the label file, labels that the outputs can't hold, or .bin files of an unclear
    element type; PartlyFailed where a process was killed.
    """
    label_by_stem = read_labels(label_file)
    all_names = prediction_names(folder)
    if not all_names:
        raise FileNotFoundError(f"{folder} holds no predictions (*_0.txt, *_0.bin or *_0.npy)")
    copies = without_copies(folder, all_names)
    name_by_stem, problems = _matched(copies, label_by_stem)
    names = list(name_by_stem.values())
    labels = np.array([label_by_stem[stem] for stem in name_by_stem], np.int64)
    num_classes = 1 + int(labels.max(initial=0))
    form = _form(folder, names or all_names, num_classes=num_classes, known=known)
    offset = 1 if form.num_outputs == _OUTPUTS_WITH_BACKGROUND else 0
    ranked = rank_files(folder, names, labels + offset, form=form, num_workers=num_workers)
    for kind, name in ranked.broken:
        problems.setdefault(kind, []).append(name)
    labels = labels[ranked.positions]
    told = ranked.num_first == 1  # of a tie the first place says nothing
    advice = _advice(labels[told], ranked.best[told], num_outputs=form.num_outputs, offset=offset)
    if len(labels) and int(labels.max()) + offset >= form.num_outputs:
        raise ValueError(
            f"{label_file} has classes up to {labels.max()}, the predictions have "
            f"{form.num_outputs} outputs, 0 to {form.num_outputs - 1}"
            f"{f'; {advice}' if advice else ''}"
        )
    return Scores(
        form, labels, ranked.ranks, ranked.best - offset, ranked.num_first, problems, advice,
        copies.num_copies,
    )  # fmt: skip


def _form(folder: Path, names: Sequence[str], *, num_classes: int, known: FileForm) -> FileForm:
    try:
        return find_form(folder, names, num_classes=num_classes, known=known)
    except ValueError as error:
        raise ValueError(
            f"{error}, and the labels have {num_classes} classes: give the element type with "
            "--dtype, or the number of outputs with --num_outputs"
        ) from None


def _advice(labels: Indices, outputs: Indices, *, num_outputs: int, offset: int) -> str:
    if not len(labels):
        return ""
    found = better_label_order(labels, outputs, num_outputs=num_outputs, offset=offset)
    if found is None:
        return could_not_tell(labels, outputs, num_outputs=num_outputs, offset=offset)
    plain = 100 * float((labels + offset == outputs).mean())
    return (
        f"the labels do not go with the outputs: top-1 is {plain:.2f}% and would be "
        f"{found.accuracy:.2f}%; {found.advice}"
    )


def read_labels(label_file: Path) -> dict[str, int]:
    """Return the class number of each picture, by stem.

    Raises FileNotFoundError, and ValueError for a line of another form or a second label.
    """
    labels: dict[str, int] = {}
    for line in read_label_lines(label_file):
        stem = picture_stem(line.name.rpartition("/")[2])
        if stem in labels:
            raise ValueError(f"{line.where}: {stem} has a label already")
        labels[stem] = line.label
    if not labels:
        raise ValueError(f"{label_file} is empty: it needs lines {LABEL_FORM}")
    return labels


def _matched(
    copies: Copies, label_by_stem: Mapping[str, int]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(the prediction of each picture that has a label, by stem; what is wrong with others)."""
    name_by_stem: dict[str, str] = {}
    extra: list[str] = []
    double: list[str] = []
    for name in copies.names:
        stem = stem_of(name)
        if stem not in label_by_stem:
            extra.append(name)
        elif stem in name_by_stem:
            double.append(f"{quoted(name)} beside {quoted(name_by_stem[stem])}")
        else:
            name_by_stem[stem] = name
    there_twice = {stem_of(name) for name in copies.differing}
    missing = sorted(label_by_stem.keys() - name_by_stem.keys() - there_twice)
    differing = [
        f"{quoted(name)} beside {quoted(first)}" for name, first in copies.differing.items()
    ]
    found = {_MISSING: missing, _EXTRA: extra, _DOUBLE: double, _DIFFERING: differing}
    return name_by_stem, {kind: names for kind, names in found.items() if names}


def result_json(scores: Scores, topk: int) -> str:
    """The result as the launchers of the Ascend ModelZoo read it; at most a line an output."""
    figures = {
        "Number of images": str(scores.num_images),
        "Number of classes": str(scores.num_outputs),
    }
    for place in range(1, min(topk, scores.num_outputs) + 1):
        figures[f"Top{place} accuracy"] = f"{round(scores.accuracy(place), 2)}%"
    value = [{"key": key, "value": figure} for key, figure in figures.items()]
    return json.dumps({"title": "Overall statistical evaluation", "value": value})


@dataclass(frozen=True)
class ScoreFiles:
    """Which files are written. Raises ValueError for a folder's name, or a `topk` below 1."""

    result: Path
    per_class: Path | None = None
    confusion: Path | None = None
    topk: int = 5

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"topk is {self.topk}: give 1 or more")
        for path in (self.result, self.per_class, self.confusion):
            if path is not None and path.is_dir():
                raise ValueError(f"{path} is a folder: give the name of a file")


def write_scores(scores: Scores, files: ScoreFiles) -> str:
    """Write the result, and the table and picture asked for; return a line for the reader.

    Raises OSError, and ValueError where what draws the picture isn't installed.
    """
    if files.confusion is not None:
        _draw_confusion(scores, files.confusion)
    if files.per_class is not None:
        _write_whole(_per_class_table(scores), files.per_class)
    _write_whole(result_json(scores, files.topk), files.result)
    places = sorted({1, min(files.topk, scores.num_outputs)})
    figures = ", ".join(
        f"top-{place} {scores.accuracy(place):.2f}% ({scores.num_hits(place)})" for place in places
    )
    remarks = [f" of {scores.num_outputs} outputs"]
    if scores.form.dtype != USUAL:
        remarks.append(f", .bin files read as {scores.form.dtype}")
    if scores.num_copies:
        remarks.append(f", {scores.num_copies} equal ones of other devices left out")
    if scores.num_ties:
        remarks.append(f", {scores.num_ties} with several highest outputs counted as wrong")
    return f"{scores.num_images} images: {figures}{''.join(remarks)}; {files.result}"


def _write_whole(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(text.encode(), path)


def _per_class_table(scores: Scores) -> str:
    """A CSV line for each class that has pictures, numbered as the labels."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ("class", "num_images", "num_correct", "accuracy_top1", "accuracy_top5",
         "most_confused_with")
    )  # fmt: skip
    for label in np.unique(scores.labels):
        of_class = scores.labels == label
        ranks, answers = scores.ranks[of_class], scores.answers[of_class]
        wrong = Counter(answers[answers != label].tolist()).most_common(1)
        shares = (round(100 * float((ranks < place).mean()), 3) for place in (1, 5))
        num_correct = int(np.count_nonzero(ranks < 1))
        table.writerow((label, len(ranks), num_correct, *shares, wrong[0][0] if wrong else ""))
    return text.getvalue()


def confusion_of(scores: Scores) -> ConfusionCounts:
    """Counts of the pairs (label, answer); a background class comes last in both."""
    num_outputs = scores.num_outputs
    # The background's -1 becomes the last.
    return ConfusionCounts(scores.labels, scores.answers % num_outputs, num_outputs)


def _draw_confusion(scores: Scores, path: Path) -> None:
    with needing("the confusion matrix can't be drawn without; install it, or leave that out"):
        # Here: no other offline step needs what it imports.
        from lib.report.plots.confusion import save_confusion
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [str(label) for label in range(scores.num_outputs)]
    save_confusion(confusion_of(scores), names, path)
