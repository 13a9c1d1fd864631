"""What a run leaves behind: one file a sample and output, none with a number that is not finite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.offline.infer.inputs import Sample
from lib.offline.infer.model import Array
from lib.offline.prediction_files import prediction_names, stem_of, write_prediction

_RESULT = re.compile(r"_\d+\.\w+$")  # <stem>_<output>.<ending>


@dataclass(frozen=True)
class Written:
    """What became of one sample: its files, and whether every output was finite."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_finite: bool


@dataclass(frozen=True)
class OutputFolder:
    """Cuts a batch's outputs into samples and writes them; without a folder it only checks them."""

    folder: Path | None
    outfmt: str
    batch_axis: int
    samples_per_batch: int

    def write(self, outputs: Sequence[Array], samples: Sequence[Sample]) -> dict[Sample, Written]:
        """Write the outputs of the batch's first slots; what lies behind `samples` is padding.

        Raises ValueError where an output can't be cut into as many parts as the batch has samples.
        """
        parts = [self._cut(number, output) for number, output in enumerate(outputs)]
        return {
            sample: self._write_sample(sample, [part[slot] for part in parts])
            for slot, sample in enumerate(samples)
        }

    def _cut(self, number: int, output: Array) -> list[Array]:
        axis, count = self.batch_axis, self.samples_per_batch
        if count == 1:
            return [output]
        if axis >= output.ndim or output.shape[axis] % count:
            raise ValueError(
                f"output {number} has shape {output.shape}, which axis {axis} "
                f"(--output_batchsize_axis) doesn't cut into the {count} samples of a batch"
            )
        return np.array_split(output, count, axis)

    def _write_sample(self, sample: Sample, values: Sequence[Array]) -> Written:
        inputs = tuple(str(path) for path in sample.files)
        if not all(np.isfinite(value).all() for value in values):
            return Written(inputs, (), is_finite=False)
        if self.folder is None:
            return Written(inputs, (), is_finite=True)
        names = []
        for number, value in enumerate(values):
            path = self.folder / f"{sample.stem}_{number}"
            names.append(str(write_prediction(value, path, self.outfmt)))
        return Written(inputs, tuple(names), is_finite=True)

    def clear(self, samples: Sequence[Sample]) -> int:
        """Remove earlier results of these samples; return how many of other samples stay.

        A sample that fails this time must not keep the result of another run.
        """
        if self.folder is None or not self.folder.is_dir():
            return 0
        stems = {sample.stem for sample in samples}
        num_others = 0
        for name in prediction_names(self.folder):
            if stem_of(name) in stems and _RESULT.search(name):
                (self.folder / name).unlink()
            else:
                num_others += 1
        return num_others
