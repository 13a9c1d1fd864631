"""Differences between two folders of predictions, such as an .om's and ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lib.offline.copies import without_copies
from lib.offline.element_type import USUAL
from lib.offline.prediction_files import parse_prediction, prediction_names, read_whole, stem_of
from lib.offline.ranking import FileForm, find_form

_NUM_NAMED = 20

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Flip:
    """A sample whose highest score is another class in B than in A."""

    name: str
    class_a: int
    class_b: int
    margin: float  # in A, by which its class is ahead of B's


@dataclass(frozen=True)
class PredictionDiff:
    """Absolute differences of single outputs, over all pairs of files."""

    num_compared: int
    largest_difference: float
    largest_relative: float  # to the range from A's lowest output to its highest
    largest_name: str | None
    mean_difference: float
    flips: tuple[Flip, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    broken: tuple[str, ...]  # `<name>: <reason>` of pairs that can't be compared
    dtype_a: str = USUAL  # of A's .bin files
    dtype_b: str = USUAL

    @property
    def is_complete(self) -> bool:
        """True where every file has its partner and every pair could be compared."""
        return not (self.only_in_a or self.only_in_b or self.broken)


@dataclass(frozen=True)
class _Side:
    """The predictions of one folder."""

    paths: Mapping[str, Path]  # by stem
    dtype: str  # of .bin files
    differing: Mapping[str, str]  # what its devices disagree on, by stem

    def read(self, name: str) -> Values:
        path = self.paths[name]
        return parse_prediction(read_whole(path), path.name, self.dtype).astype(np.float64)


def diff_folders(
    folder_a: Path, folder_b: Path, *, dtype_a: str = "", dtype_b: str = ""
) -> PredictionDiff:
    """Compare the predictions of two folders, in pairs of one stem, whatever their formats.

    What several devices computed alike counts once. `dtype_a` and `dtype_b` are the element types
    of .bin files; without them size and values tell.

    Raises FileNotFoundError, and ValueError where a folder holds none or two files of one stem, or
    an element type can't be told.
    """
    a, b = _side(folder_a, dtype_a, "--dtype_a"), _side(folder_b, dtype_b, "--dtype_b")
    sums = _Sums()
    for name in a.paths:
        if name in b.paths:
            sums.add(name, a, b)
    doubtful = {*a.differing, *b.differing}
    spread = sums.highest - sums.lowest
    return PredictionDiff(
        num_compared=sums.num_compared,
        largest_difference=sums.largest,
        largest_relative=sums.largest / spread if spread > 0 else 0.0,
        largest_name=sums.largest_name,
        mean_difference=sums.total / sums.num_values if sums.num_values else 0.0,
        flips=tuple(sums.flips),
        only_in_a=tuple(name for name in a.paths if name not in {*b.paths, *doubtful}),
        only_in_b=tuple(name for name in b.paths if name not in {*a.paths, *doubtful}),
        broken=(*a.differing.values(), *b.differing.values(), *sums.broken),
        dtype_a=a.dtype,
        dtype_b=b.dtype,
    )


class _Sums:
    """What the pairs so far add up to."""

    def __init__(self) -> None:
        self.num_compared = self.num_values = 0
        self.total = self.largest = 0.0
        self.largest_name: str | None = None
        self.lowest, self.highest = np.inf, -np.inf
        self.flips: list[Flip] = []
        self.broken: list[str] = []

    def add(self, name: str, side_a: _Side, side_b: _Side) -> None:
        try:
            a, b = side_a.read(name), side_b.read(name)
        except (ValueError, OSError) as error:
            self.broken.append(f"{name}: {error}")
            return
        if a.shape != b.shape:
            self.broken.append(f"{name}: {a.size} outputs in A, {b.size} in B")
            return
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            self.broken.append(f"{name}: an output is not finite")
            return
        difference = np.abs(a - b)
        self.num_compared += 1
        self.num_values += difference.size
        self.total += float(difference.sum())
        self.lowest = min(self.lowest, float(a.min()))
        self.highest = max(self.highest, float(a.max()))
        if self.largest_name is None or difference.max() > self.largest:
            self.largest, self.largest_name = float(difference.max()), name
        best_a, best_b = int(a.argmax()), int(b.argmax())
        if best_a != best_b:
            self.flips.append(Flip(name, best_a, best_b, float(a[best_a] - a[best_b])))


def _side(folder: Path, dtype: str, option: str) -> _Side:
    copies = without_copies(folder, prediction_names(folder))
    paths: dict[str, Path] = {}
    for name in copies.names:
        path = folder / name
        other = paths.setdefault(stem_of(name), path)
        if other != path:
            raise ValueError(f"{other} and {path} are of one stem: compare one output, one format")
    if not paths and not copies.differing:
        raise ValueError(f"{folder} holds no prediction: *.bin, *.npy or *.txt files are needed")
    try:
        form = find_form(folder, copies.names, num_classes=1, known=FileForm(dtype=dtype))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}: give the element type with {option}") from None
    differing = {
        stem_of(name): f"{name} beside {first}: two devices disagree"
        for name, first in copies.differing.items()
    }
    return _Side(paths, form.dtype, differing)


def report_lines(diff: PredictionDiff) -> list[str]:
    """Return the differences for people; of long lists the first names."""
    lines = [f"{diff.num_compared} predictions compared"]
    for side, dtype in (("A", diff.dtype_a), ("B", diff.dtype_b)):
        if dtype != USUAL:
            lines.append(f"{side}'s .bin files read as {dtype}")
    if diff.largest_name is not None:
        lines += [
            f"largest logit difference: {diff.largest_difference:.3e} in "
            f"{diff.largest_name} ({diff.largest_relative:.3e} of the logits' range)",
            f"mean logit difference: {diff.mean_difference:.3e}",
            f"top-1 flips: {len(diff.flips)}",
        ]
    lines += _some(
        [
            f"{flip.name}: class {flip.class_a} in A, {flip.class_b} in B "
            f"(margin in A {flip.margin:.3e})"
            for flip in diff.flips
        ]
    )
    for title, names in (
        ("only in A", diff.only_in_a),
        ("only in B", diff.only_in_b),
        ("not comparable", diff.broken),
    ):
        if names:
            lines += [f"{title}: {len(names)}", *_some(names)]
    return lines


def _some(names: Sequence[str]) -> list[str]:
    shown = [f"  {name}" for name in names[:_NUM_NAMED]]
    more = len(names) - len(shown)
    return [*shown, f"  and {more} more: --json names all"] if more else shown
