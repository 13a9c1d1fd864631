"""How far a network's own probabilities can be trusted: calibration error and its diagram.

Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599: the pictures are put into 15
bins by the probability of the predicted class; the error is the mean distance of a bin's accuracy
from its mean probability, weighted by its pictures.
"""

from __future__ import annotations

import math
from pathlib import Path

from lib.evaluation.measure import Measure, Measured
from lib.metrics.predictions import Predictions
from lib.report.plots.reliability import NUM_BINS, save_reliability
from lib.runtime.cli import needing


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
