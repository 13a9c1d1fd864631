"""What a smaller model costs, measured beside the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.export.onnx_metadata import load_model, metadata_of, recipe_of
from lib.export.quantize.pictures import Picture
from lib.export.quantize.sessions import load, open_session, parts_of, run
from lib.metrics.confusion import answers_of
from lib.runtime.cli import PartlyFailed

_BATCH = 8


@dataclass(frozen=True)
class Comparison:
    """What the smaller model costs, on the same pictures as the original."""

    num_images: int
    num_agreeing: int  # pictures for which both name the same class
    max_abs_difference: float  # of the logits
    num_correct_before: int | None  # None: the pictures have no labels
    num_correct_after: int | None

    @property
    def agreement(self) -> float:
        """Percent of the pictures for which both name the same class."""
        return 100.0 * self.num_agreeing / max(1, self.num_images)

    @property
    def drop(self) -> float:
        """Points of top-1 accuracy lost; without labels, the points of disagreement."""
        if self.num_correct_before is None or self.num_correct_after is None:
            return 100.0 - self.agreement
        return 100.0 * (self.num_correct_before - self.num_correct_after) / max(1, self.num_images)

    def lines(self) -> list[str]:
        """Return what to print of it."""
        lines = [
            f"same class for {self.num_agreeing} of {self.num_images} pictures "
            f"({self.agreement:.2f} %), largest logit difference {self.max_abs_difference:.4f}"
        ]
        if self.num_correct_before is not None and self.num_correct_after is not None:
            before, after = (
                100 * count / self.num_images
                for count in (self.num_correct_before, self.num_correct_after)
            )
            lines.append(
                f"top-1 before {before:.2f} %, after {after:.2f} % ({self.num_images} pictures)"
            )
        return lines


def compare(before: Path, after: Path, pictures: Sequence[Picture]) -> Comparison:
    """Run both models on the pictures and return what changed.

    Raises ValueError for a picture that can't be read, PartlyFailed where a model's output is not
    a finite number.
    """
    recipe = recipe_of(metadata_of(load_model(before)), before)
    sessions = [open_session(before), open_session(after)]
    num_agreeing, difference, correct = 0, 0.0, [0, 0]
    for part in parts_of(pictures, _BATCH):
        images = load(part, recipe)
        first, second = (run(session, images)[0].astype(np.float32) for session in sessions)
        for logits, which in ((first, "original"), (second, "smaller")):
            unusable = ~np.isfinite(logits).all(axis=1)
            if unusable.any():
                path = part[int(unusable.argmax())].path
                raise PartlyFailed(f"the {which} model's output for {path} is not finite")
        targets = np.array([-1 if p.target is None else p.target for p in part])
        names = answers_of(first, targets), answers_of(second, targets)
        num_agreeing += int((names[0] == names[1]).sum())
        difference = max(difference, float(np.abs(first - second).max()))
        correct = [
            total + int((n == targets).sum()) for total, n in zip(correct, names, strict=True)
        ]
    labelled = all(picture.target is not None for picture in pictures)
    return Comparison(
        len(pictures),
        num_agreeing,
        difference,
        num_correct_before=correct[0] if labelled else None,
        num_correct_after=correct[1] if labelled else None,
    )
