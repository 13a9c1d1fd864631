"""Where batches come from: files of tensors, pictures, or nothing but zeros and chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lib.offline_infer.inputs import Sample
from lib.offline_infer.model import Array, ModelDescription, TensorSpec
from lib.pictures import one_line
from lib.recipe import Recipe
from lib.transforms import eval_pixels, normalize, open_rgb

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

    def __init__(self, samples: tuple[Sample, ...], model: ModelDescription):
        """Measure every file.

        Raises SizeMismatch, and ValueError that names a file of another size or element type.
        """
        self.samples = samples
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
        """See `Source`. Raises ValueError for a file that has changed since it was measured."""
        arrays = []
        for number, spec in enumerate(self._specs):
            memory = np.empty(spec.num_bytes, np.uint8)
            slots = memory.reshape(self.samples_per_batch, -1)
            for slot, sample in zip(slots, samples, strict=False):
                _read_into(slot, sample.files[number])
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
    array = _open_npy(path)
    if array.dtype != spec.dtype:
        raise ValueError(f"{path} holds {array.dtype}, but the model's input is {spec.dtype}")
    return array.nbytes


def _open_npy(path: Path) -> Array:
    """Return the array without reading its elements yet."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no readable .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an archive of arrays, not one array")
    return array


def _read_into(slot: Bytes, path: Path) -> None:
    if path.suffix.lower() == ".npy":
        content = np.ascontiguousarray(_open_npy(path)).reshape(-1).view(np.uint8)
        complete = content.size == slot.size
        if complete:
            slot[:] = content
    else:
        with open(path, "rb", buffering=0) as file:
            complete = file.readinto(slot.data) == slot.size and not file.read(1)
    if not complete:
        raise ValueError(f"{path} has changed its size while this program ran")


class Pictures:
    """Samples that are pictures, prepared as the model asks for in its metadata."""

    def __init__(self, samples: tuple[Sample, ...], model: ModelDescription):
        """Raises ValueError where the model's input is no picture that can be prepared here."""
        spec = model.inputs[0]
        crop = spec.shape[-1]
        if len(model.inputs) != 1 or spec.shape[1:] != (3, crop, crop) or spec.dtype.kind != "f":
            raise ValueError(
                f"--input_images: {model.path} takes {spec.dtype} {spec.shape}; pictures are made "
                "for one input of N x 3 x S x S floats"
            )
        self._recipe = model.recipe or Recipe.for_crop(crop)
        if self._recipe.crop != crop or self._recipe.layout != "CHW" or self._recipe.mean is None:
            raise ValueError(
                f"--input_images: {model.path} takes {spec.dtype} {spec.shape}, and its metadata "
                f"tells of other pictures ({self._recipe}, {self._recipe.layout}): give it bins "
                "with --input"
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
                pixels = eval_pixels(open_rgb(sample.files[0]), self._recipe)
            except Exception as error:  # Pillow's plug-ins raise nearly anything
                failures.append(f"{sample.files[0]}: {one_line(error)}")
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
