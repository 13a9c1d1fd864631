"""Hold two folders of predictions against each other: an .om's beside ONNX Runtime's, say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lib.offline.predictions import list_predictions, read_prediction, stem_of

_NUM_NAMED = 20


@dataclass(frozen=True)
class Flip:
    """A sample whose highest score is another class in B than in A."""

    name: str
    class_a: int
    class_b: int
    margin: float  # in A, by which its class is ahead of B's


@dataclass(frozen=True)
class Comparison:
    """How two folders differ. Differences are absolute ones of single outputs, over all pairs."""

    num_compared: int
    largest_difference: float
    largest_relative: float  # to the range from A's lowest output to its highest
    largest_name: str | None
    mean_difference: float
    flips: tuple[Flip, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    broken: tuple[str, ...]  # `<name>: <reason>` of pairs that can't be compared

    @property
    def is_complete(self) -> bool:
        """True where every file has its partner and every pair could be compared."""
        return not (self.only_in_a or self.only_in_b or self.broken)

    def as_dict(self) -> dict[str, object]:
        """Return plain types for JSON."""
        return asdict(self)


def compare_folders(folder_a: Path, folder_b: Path) -> Comparison:
    """Compare the predictions of two folders, in pairs of one stem, whatever their formats.

    Raises FileNotFoundError, and ValueError where a folder holds none or two files of one stem.
    """
    a, b = _by_stem(folder_a), _by_stem(folder_b)
    sums = _Sums()
    for name in a:
        if name in b:
            sums.add(name, a[name], b[name])
    spread = sums.highest - sums.lowest
    return Comparison(
        num_compared=sums.num_compared,
        largest_difference=sums.largest,
        largest_relative=sums.largest / spread if spread > 0 else 0.0,
        largest_name=sums.largest_name,
        mean_difference=sums.total / sums.num_values if sums.num_values else 0.0,
        flips=tuple(sums.flips),
        only_in_a=tuple(name for name in a if name not in b),
        only_in_b=tuple(name for name in b if name not in a),
        broken=tuple(sums.broken),
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

    def add(self, name: str, path_a: Path, path_b: Path) -> None:
        try:
            a, b = (read_prediction(path).astype(np.float64) for path in (path_a, path_b))
        except ValueError as error:
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


def _by_stem(folder: Path) -> Mapping[str, Path]:
    """Return the predictions of a folder by stem."""
    by_stem: dict[str, Path] = {}
    for path in list_predictions(folder):
        other = by_stem.setdefault(stem_of(path.name), path)
        if other != path:
            raise ValueError(f"{other} and {path} are of one stem: compare one output, one format")
    if not by_stem:
        raise ValueError(f"{folder} holds no prediction: *.bin, *.npy or *.txt files are needed")
    return by_stem


def report_lines(comparison: Comparison) -> list[str]:
    """Return the comparison for people; of long lists the first names."""
    lines = [f"{comparison.num_compared} predictions compared"]
    if comparison.largest_name is not None:
        lines += [
            f"largest logit difference: {comparison.largest_difference:.3e} in "
            f"{comparison.largest_name} ({comparison.largest_relative:.3e} of the logits' range)",
            f"mean logit difference: {comparison.mean_difference:.3e}",
            f"top-1 flips: {len(comparison.flips)}",
        ]
    lines += _some(
        [
            f"{flip.name}: class {flip.class_a} in A, {flip.class_b} in B "
            f"(margin in A {flip.margin:.3e})"
            for flip in comparison.flips
        ]
    )
    for title, names in (
        ("only in A", comparison.only_in_a),
        ("only in B", comparison.only_in_b),
        ("not comparable", comparison.broken),
    ):
        if names:
            lines += [f"{title}: {len(names)}", *_some(names)]
    return lines


def _some(names: list[str] | tuple[str, ...]) -> list[str]:
    shown = [f"  {name}" for name in names[:_NUM_NAMED]]
    more = len(names) - len(shown)
    return [*shown, f"  and {more} more: --json names all"] if more else shown
