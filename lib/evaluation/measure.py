"""The form of a figure that is told beside top-1 and top-5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lib.metrics.predictions import Predictions


@dataclass(frozen=True)
class Measured:
    """A figure as it is told."""

    record: Mapping[str, object]  # entries of result.json
    line: str  # of the console; says neither `Test` nor `Accuracy@1`, which others look for


Measure = Callable[[Predictions], Measured]
