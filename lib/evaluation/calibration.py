"""How far a network's own probabilities can be trusted: calibration error and its diagram.

Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599: the pictures are put into 15
bins by the probability of the predicted class; the error is the mean distance of a bin's accuracy
from its mean probability, weighted by its pictures.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lib.cli import needing
from lib.evaluation.measure import Measure, Measured
from lib.files import write_atomically
from lib.predictions import Predictions

NUM_BINS = 15


def calibration_measure(diagram: Path) -> Measure:
    """Return what tells the calibration error of the likeliest class, and draws `diagram`.

    Raises ValueError where the library for it is not installed: before an evaluation, not after.
    """
    with needing("pip install torchmetrics"):
        from torchmetrics.functional.classification import binary_calibration_error

    def measure(predictions: Predictions) -> Measured:
        confidences = predictions.probabilities[:, 0].double()
        is_correct = predictions.classes[:, 0] == predictions.targets
        error = math.nan
        if bool(confidences.isfinite().all()):
            # The library gives a probability of exactly 1 a bin of its own, past the last one.
            shares = confidences.clamp(max=math.nextafter(1, 0))
            error = float(
                binary_calibration_error(shares, is_correct.long(), n_bins=NUM_BINS, norm="l1")
            )
            save_reliability(shares.numpy(), is_correct.numpy(), diagram, error=error)
        mean = float(confidences.mean())
        record = {"calibration_error": round(error, 5), "mean_confidence": round(mean, 5)}
        return Measured(record, f"calibration error {error:.5f}, mean confidence {mean:.5f}")

    return measure


def save_reliability(
    confidences: npt.NDArray[np.float64],
    is_correct: npt.NDArray[np.bool_],
    path: Path,
    *,
    error: float,
) -> None:
    """Draw the accuracy of each bin over its mean confidence, and its pictures, as a PNG."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    counts, sums, right = (
        np.histogram(confidences, edges, weights=weights)[0]
        for weights in (None, confidences, is_correct.astype(np.float64))
    )
    filled = counts > 0
    accuracies = right[filled] / counts[filled]
    figure = Figure(figsize=(5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.bar(edges[:-1][filled], accuracies, edges[1], align="edge", alpha=0.5)
    above.plot([0, 1], [0, 1], color="0.4", linestyle="--", label="as it should be")
    above.plot(sums[filled] / counts[filled], accuracies, marker="o", label="bins of confidence")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right predictions")
    above.set_title(f"calibration error {error:.4f}, {len(confidences)} images")
    above.legend()
    below.bar(edges[:-1], counts, edges[1], align="edge", color="0.6")
    below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(buffer.getvalue(), path)
