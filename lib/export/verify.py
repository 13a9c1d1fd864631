"""The ONNX file run by ONNX Runtime, beside the network it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from lib.config.recipe import Recipe
from lib.data.picture_files import find_pictures, network_input
from lib.export.graph import INPUT, OUTPUT
from lib.export.options import DYNAMIC_CHECKS, ExportOptions
from lib.runtime.files import finite
from lib.runtime.text import one_line

FloatArray = npt.NDArray[np.float32]

TOLERANCE = 1e-4  # of the largest error, relative to the range of the network's logits
RANDOM = "random"
MAX_PICTURES = 128  # more do not make the check stricter, only slower
_PICTURE_BATCHES = DYNAMIC_CHECKS[:2]


@dataclass(frozen=True)
class Check:
    """How far ONNX Runtime's logits are from the network's, over some images at one batch."""

    batch: int
    images: str  # `random`, or the folder of the pictures
    num_images: int  # that were compared
    num_padding: int  # copies of an image, which fill the last batch up and are not compared
    max_abs_error: float
    relative_error: float  # over the range of the network's logits
    top1_agreement: float  # share of images with the same best class

    @property
    def passed(self) -> bool:
        """False for what is not a number, too."""
        return self.relative_error <= TOLERANCE

    def as_json(self) -> dict[str, object]:
        """Return the fields; an error that is not finite as None, which JSON can say."""
        return {
            "batch": self.batch,
            "images": self.images,
            "num_images": self.num_images,
            "num_padding": self.num_padding,
            "max_abs_error": finite(self.max_abs_error),
            "relative_error": finite(self.relative_error),
            "top1_agreement": self.top1_agreement,
        }

    def __str__(self) -> str:
        padding = f" and {self.num_padding} of padding" if self.num_padding else ""
        return (
            f"batch {self.batch}, {self.num_images} images ({self.images}){padding}: "
            f"max error {self.max_abs_error:.3g}, relative {self.relative_error:.2g}, "
            f"top-1 agreement {100 * self.top1_agreement:.4g} %"
        )


@dataclass(frozen=True)
class Pictures:
    """Pictures of a folder as evaluation prepares them: float32 N x 3 x S x S."""

    folder: str
    images: FloatArray


def read_pictures(folder: Path, recipe: Recipe) -> Pictures:
    """Return the pictures under `folder`; of more than `MAX_PICTURES` an even choice.

    Raises FileNotFoundError where there are none, ValueError for one that can't be read.
    """
    paths = [folder / path for path in find_pictures(folder).pictures]
    num_taken = min(len(paths), MAX_PICTURES)
    chosen = [paths[index * len(paths) // num_taken] for index in range(num_taken)]
    try:
        images = [network_input(path, recipe) for path in chosen]
    except ValueError as error:
        raise ValueError(f"--verify_images: {error}") from None
    return Pictures(str(folder), np.stack(images))


def verify_onnx(
    path: Path,
    network: nn.Module,
    options: ExportOptions,
    *,
    image_size: int,
    pictures: Pictures | None = None,
) -> list[Check]:
    """Return a check a batch on random images, then a check a batch on `pictures`.

    Of a fixed batch the first checks have fewer images than it, and padding: what an inference tool
    does with the last pictures of a folder.
    `network` is the one to agree with, on the CPU. Raises ValueError where ONNX Runtime does not
    open the file.
    """
    session = _session(path)
    generator = np.random.default_rng(0)
    checks = []
    for num_images in options.checked_batches:
        shape = (num_images, 3, image_size, image_size)
        images = generator.standard_normal(shape, dtype=np.float32)
        expected = _network_logits(network, images)
        batch = options.batch or num_images
        checks.append(_compare(session, images, expected, batch=batch, source=RANDOM))
    if pictures is not None:
        images, source = pictures.images, pictures.folder
        expected = _network_logits(network, images)
        for batch in _PICTURE_BATCHES if options.batch is None else (options.batch,):
            checks.append(_compare(session, images, expected, batch=batch, source=source))
    return checks


def _session(path: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no public base
        reason = one_line(error)
        raise ValueError(f"ONNX Runtime {onnxruntime.__version__} refuses it: {reason}") from None


def _network_logits(network: nn.Module, images: FloatArray) -> FloatArray:
    with torch.inference_mode():
        parts = [network(part) for part in torch.from_numpy(images).split(DYNAMIC_CHECKS[1])]
    return torch.cat(parts).numpy()


def _compare(
    session: onnxruntime.InferenceSession,
    images: FloatArray,
    expected: FloatArray,
    *,
    batch: int,
    source: str,
) -> Check:
    starts = range(0, len(images), batch)
    got = np.concatenate([_run(session, images, start, batch) for start in starts])
    errors = np.abs(got - expected)
    largest = float(errors.max()) if np.isfinite(errors).all() else math.inf
    spread = float(expected.max() - expected.min()) or float(np.abs(expected).max())
    agreement = float((got.argmax(1) == expected.argmax(1)).mean())
    relative = largest / spread if largest else 0.0
    num_padding = -len(images) % batch
    return Check(batch, source, len(images), num_padding, largest, relative, agreement)


def _run(
    session: onnxruntime.InferenceSession, images: FloatArray, start: int, batch: int
) -> FloatArray:
    part = images[start : start + batch]
    padding = np.repeat(part[-1:], batch - len(part), axis=0)  # a fixed batch takes no less
    return session.run([OUTPUT], {INPUT: np.concatenate([part, padding])})[0][: len(part)]
