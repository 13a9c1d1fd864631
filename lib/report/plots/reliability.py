"""The reliability diagram: how often a network is right at each of its own confidences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lib.report.plots.palette import FAINT, VALIDATION
from lib.report.plots.text import FONT, plain_text, save

NUM_BINS = 15
MIN_IMAGES = 10  # of a bin: of fewer the share of right ones says little
_Z = 1.96  # of a normal distribution 95 % lie within so many deviations of its mean

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """What lies in each of the bins of confidence, all of one width."""

    counts: npt.NDArray[np.int64]
    confidences: Numbers  # mean of a bin's; NaN where it is empty
    accuracies: Numbers  # share of the right ones, 0..1


def bins_of(confidences: Numbers, is_correct: npt.NDArray[np.bool_]) -> Bins:
    """Return the bins of N predictions with confidences in 0..1."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    counts = np.histogram(confidences, edges)[0]
    sums, right = (
        np.histogram(confidences, edges, weights=weights)[0]
        for weights in (confidences, is_correct.astype(np.float64))
    )
    divisors = np.where(counts, counts, np.nan)
    return Bins(counts, sums / divisors, right / divisors)


def wilson_interval(share: Numbers, count: npt.NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """Return the ends of the 95 % interval of shares that were seen in `count` trials each.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    weight = _Z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    spread = _Z * np.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return middle - spread, middle + spread


def save_reliability(
    confidences: Numbers, is_correct: npt.NDArray[np.bool_], path: Path, *, error: float
) -> None:
    """Draw the accuracy of each bin over its mean confidence, and its images, as a PNG.

    Each has its 95 % interval; bins of few images are hollow. Raises OSError.
    """
    bins = bins_of(confidences, is_correct)
    with plain_text(FONT, points=9):
        figure = Figure(figsize=(5.4, 6.8), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="as it should be")
        for is_meant, label, face in (
            (bins.counts >= MIN_IMAGES, "bin of confidence, with its 95 % interval", VALIDATION),
            (bins.counts < MIN_IMAGES, f"the same, of fewer than {MIN_IMAGES} images", "white"),
        ):
            here = is_meant & (bins.counts > 0)
            if not here.any():
                continue
            shares, few = bins.accuracies[here], face == "white"
            low, high = wilson_interval(shares, bins.counts[here])
            above.errorbar(
                bins.confidences[here], shares, [shares - low, high - shares],
                fmt="o", color=VALIDATION, markerfacecolor=face, capsize=2.5,
                alpha=0.45 if few else 1, label=label,
            )  # fmt: skip
        above.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share of right predictions")
        above.grid(alpha=0.3)
        figure.suptitle(f"calibration error {error:.4f}, {len(confidences):,} images", fontsize=10)
        above.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2)
        edges = np.linspace(0, 1, NUM_BINS + 1)
        bars = below.bar(edges[:-1], bins.counts, edges[1], align="edge", color=FAINT)
        below.bar_label(bars, [_short(n) for n in bins.counts.tolist()], padding=1, fontsize=7)
        below.margins(y=0.2)
        below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
        save(figure, path)


def _short(count: int) -> str:
    """Return a count that fits above its bar: `12k` for 12,345; '' for none."""
    return f"{count / 1000:.0f}k" if count >= 10_000 else f"{count}" if count else ""
