"""Where batches come from: files of tensors, pictures, or nothing but zeros and chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.offline.infer.inputs import Sample
from lib.offline.infer.model import Array, ModelDescription, TensorSpec
from lib.offline.npy import NpyHeader, read_npy_header
from lib.offline.preprocess_record import RECORD, sum_of
from lib.runtime.text import one_line, printable

PURE_INFER_NAME = "pure_infer_data"
PURE_DATA_TYPES = ("zero", "random")

Bytes = npt.NDArray[np.uint8]


class SizeMismatch(ValueError):
    """The model's tensor is no whole number of files; the message is ais_bench's."""


@dataclass(frozen=True)
class LoadedBatch:
    """The arrays of one batch (one an input), and the samples that its first slots hold.

    What lies behind these is padding.
    """

    arrays: tuple[Array, ...]
    samples: tuple[Sample, ...]
    failures: tuple[str, ...] = ()  # `<file>: <reason>` of samples that could not be read


class Source(Protocol):
    """Samples that fit a model."""

    samples: tuple[Sample, ...]
    sample_bytes: int  # of the first input
    samples_per_batch: int

    def load(self, samples: Sequence[Sample]) -> LoadedBatch:
        """Read up to `samples_per_batch` samples; called from several threads."""


class TensorFiles:
    """Samples that are files of raw elements (.bin) or numpy arrays (.npy)."""

    def __init__(
        self,
        samples: tuple[Sample, ...],
        model: ModelDescription,
        sums: Mapping[Path, int] = MappingProxyType({}),
    ):
        """Measure every file; `sums` are of the content of some, which is compared on reading.

        Raises SizeMismatch, and ValueError that names a file of another size or element type.
        """
        self.samples = samples
        self._sums = sums
        self._specs = model.inputs
        columns = zip(*(sample.files for sample in samples), strict=True)
        sizes = [
            _size_of_all(files, spec, number)
            for number, (files, spec) in enumerate(zip(columns, self._specs, strict=True))
        ]
        counts = [spec.num_bytes // size for spec, size in zip(self._specs, sizes, strict=True)]
        if len(set(counts)) > 1:
            raise ValueError(
                f"a batch takes {', '.join(map(str, counts))} files of the inputs: they must agree"
            )
        self.sample_bytes, self.samples_per_batch = sizes[0], counts[0]

    def load(self, samples: Sequence[Sample]) -> LoadedBatch:
        """See `Source`. Raises ValueError for a file that has changed since it was written."""
        arrays = []
        for number, spec in enumerate(self._specs):
            memory = np.empty(spec.num_bytes, np.uint8)
            slots = memory.reshape(self.samples_per_batch, -1)
            for slot, sample in zip(slots, samples, strict=False):
                path = sample.files[number]
                _read_into(slot, path)
                if path in self._sums and sum_of(slot.data) != self._sums[path]:
                    raise ValueError(
                        f"{path} is no longer as preprocessing wrote it: preprocess the pictures "
                        f"again, or remove {RECORD} beside it, if the change is meant"
                    )
            slots[len(samples) :] = slots[0]
            arrays.append(memory.view(spec.dtype).reshape(spec.shape))
        return LoadedBatch(tuple(arrays), tuple(samples))


def _size_of_all(files: Sequence[Path], spec: TensorSpec, number: int) -> int:
    """Return the bytes of elements that each of the files has."""
    sizes = [_num_bytes(path, spec) for path in files]
    alike = len(set(sizes)) == 1
    if sizes[0] == 0 or spec.num_bytes % sizes[0] != 0:
        which = "" if alike else f" ({files[0]})"
        raise SizeMismatch(
            f"arg{number} tensorsize: {spec.num_bytes} filesize: {sizes[0]} not match{which}"
        )
    if not alike:
        usual = Counter(sizes).most_common(1)[0][0]
        odd = next(i for i, size in enumerate(sizes) if size != usual)
        raise ValueError(
            f"{files[odd]} has {sizes[odd]} bytes, but most of the files have {usual}: make it anew"
        )
    return sizes[0]


def _num_bytes(path: Path, spec: TensorSpec) -> int:
    if path.suffix.lower() != ".npy":
        return path.stat().st_size
    header = _open_npy(path)
    if header.dtype != spec.dtype:
        raise ValueError(f"{path} holds {header.dtype}, but the model's input is {spec.dtype}")
    return header.num_bytes


def _open_npy(path: Path) -> NpyHeader:
    """Return an array's header. Raises ValueError for what is no plain array."""
    try:
        with open(path, "rb") as file:
            return read_npy_header(file, path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{printable(str(path))} {error}") from None


def _read_into(slot: Bytes, path: Path) -> None:
    if path.suffix.lower() == ".npy":
        header = _open_npy(path)
        complete = header.num_bytes == slot.size
        if complete:
            flat = np.memmap(path, header.dtype, "r", header.start, (header.num_values,))
            array = flat.reshape(header.shape, order="F" if header.is_fortran else "C")
            slot[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    else:
        with open(path, "rb", buffering=0) as file:
            complete = file.readinto(slot.data) == slot.size and not file.read(1)
    if not complete:
        raise ValueError(f"{path} has changed its size while this program ran")


class Pictures:
    """Samples that are pictures, prepared by a recipe."""

    def __init__(self, samples: tuple[Sample, ...], model: ModelDescription, recipe: Recipe):
        """Raises ValueError where the model's input is no picture that can be prepared here."""
        spec = model.inputs[0]
        crop = spec.shape[-1]
        if len(model.inputs) != 1 or spec.shape[1:] != (3, crop, crop) or spec.dtype.kind != "f":
            raise ValueError(
                f"--input_images: {model.path} takes {spec.dtype} {spec.shape}; pictures are made "
                "for one input of N x 3 x S x S floats"
            )
        self._recipe = recipe
        if recipe.crop != crop or recipe.layout != "CHW" or recipe.dtype == "uint8":
            raise ValueError(
                f"--input_images: {model.path} takes {spec.dtype} {spec.shape}, and its recipe "
                f"tells of other pictures ({recipe}, {recipe.layout}, {recipe.dtype}): give it "
                "bins with --input"
            )
        self.samples = samples
        self.samples_per_batch = model.batch_size
        self.sample_bytes = spec.num_bytes // model.batch_size
        self._spec = spec

    def load(self, samples: Sequence[Sample]) -> LoadedBatch:
        """See `Source`. A picture that can't be decoded is named among the failures."""
        batch = np.empty(self._spec.shape, self._spec.dtype)
        good: list[Sample] = []
        failures = []
        for sample in samples:
            try:
                image = open_rgb(sample.files[0], orientation=self._recipe.orientation)
                pixels = eval_pixels(image, self._recipe)
            except Exception as error:  # Pillow's plug-ins raise nearly anything
                failures.append(f"{sample.files[0]}: {one_line(error, with_type=True)}")
                continue
            batch[len(good)] = normalize(pixels, self._recipe)
            good.append(sample)
        batch[len(good) :] = batch[0]
        return LoadedBatch((batch,), tuple(good), tuple(failures))


class PureData:
    """One made-up batch, for measuring without files: zeros, or chance (normal, or 0..127)."""

    def __init__(self, model: ModelDescription, pure_data_type: str):
        self.samples: tuple[Sample, ...] = (Sample(PURE_INFER_NAME, (Path(PURE_INFER_NAME),)),)
        self.samples_per_batch = 1
        self.sample_bytes = model.inputs[0].num_bytes
        self._specs = model.inputs
        self._random = pure_data_type == "random"

    def load(self, samples: Sequence[Sample]) -> LoadedBatch:
        """See `Source`."""
        arrays = [self._array(spec) for spec in self._specs]
        return LoadedBatch(tuple(arrays), tuple(samples))

    def _array(self, spec: TensorSpec) -> Array:
        if not self._random:
            return np.zeros(spec.shape, spec.dtype)
        generator = np.random.default_rng(0)
        if spec.dtype.kind == "f":
            return generator.standard_normal(spec.shape, np.float32).astype(spec.dtype)
        return generator.integers(0, 128, spec.shape).astype(spec.dtype)
