"""The mistakes that the network was surest of, with the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib.config.load import load_config
from lib.data.build import read_val
from lib.data.image_list import ImageList
from lib.data.rgb import IGNORE, open_rgb
from lib.data.splitting import SetAside
from lib.metrics.predictions_file import SavedPredictions, relative_paths
from lib.report.images import data_uri
from lib.report.run_files import RunFiles
from lib.runtime.files import is_url
from lib.runtime.run_folder import CONFIG
from lib.runtime.text import one_line

NUM_SHOWN = 24
_NO_ANSWER = "no class: NaN or infinite outputs"
_THUMBNAIL_SIDE = 320  # pixels, for screens of two a CSS pixel


@dataclass(frozen=True)
class Mistake:
    """One picture whose likeliest class is wrong."""

    path: str
    true: str
    predicted: str
    percent: float  # that the predicted class was given
    true_percent: float | None  # that the true class was given; None: below the best five
    image: str = ""  # data URI
    why_no_image: str = ""


@dataclass(frozen=True)
class Pictures:
    """Where the pictures are now."""

    images: ImageList
    data_path: Path | str
    orientation: str = IGNORE  # see `lib.data.rgb.open_rgb`

    def thumbnail(self, place: int, path: str) -> str:
        """Return the picture at a place of the list as a data URI.

        Raises LookupError where another one stands there, and whatever decoding raises.
        """
        if place >= len(self.images):
            raise LookupError("it is not among the pictures")
        if relative_paths(self.images, [place], self.data_path) != [path]:
            raise LookupError("another picture has its place")
        contents = self.images.contents
        picture = self.images.paths[place] if contents is None else contents.read(place)
        image = open_rgb(picture, orientation=self.orientation)
        image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        return data_uri(image, "JPEG")


def find_pictures(run: RunFiles, data_path: Path | str | None) -> Pictures | None:
    """Return the pictures that a run validated with; None where they are not there any more.

    They are looked for in `data_path`, or where the run had them. What is wrong with a given
    path raises as `lib.data.read_val` does.
    """
    if data_path is not None:
        return _read(run, data_path)
    if run.kept is None:
        return None
    before = run.kept.data_path
    found = before if is_url(before) else Path(before)
    try:
        return _read(run, found)
    except (ValueError, OSError):
        return None


def _read(run: RunFiles, data_path: Path | str) -> Pictures:
    dataset = load_config(run.folder / CONFIG).DATASET
    images = read_val(
        data_path,
        val_set=dataset.TEST_SET,
        class_names=run.class_names,
        num_classes=len(run.class_names),
        train_set=dataset.TRAIN_SET,
        aside=SetAside.of_run(dataset.VAL_SHARE, dataset.SPLIT_SEED, run.folder),
    )
    return Pictures(images, data_path, dataset.ORIENTATION)


def num_mistakes(kept: SavedPredictions) -> int:
    """Return how many pictures' likeliest class is wrong."""
    predictions = kept.predictions
    return int((predictions.answers != predictions.targets).sum())


def surest_mistakes(
    kept: SavedPredictions, class_names: Sequence[str], pictures: Pictures | None
) -> list[Mistake]:
    """Return the mistakes of the highest probability, the highest first."""
    predictions = kept.predictions
    wrong = (predictions.answers != predictions.targets).nonzero().flatten()
    sureness = predictions.probabilities[wrong, 0].nan_to_num(-1)
    order = wrong[sureness.argsort(descending=True, stable=True)[:NUM_SHOWN]]
    return [_mistake(kept, row, class_names, pictures) for row in order.tolist()]


def _mistake(
    kept: SavedPredictions, row: int, class_names: Sequence[str], pictures: Pictures | None
) -> Mistake:
    predictions, path = kept.predictions, kept.paths[row]
    target, classes = int(predictions.targets[row]), predictions.classes[row]
    shares = predictions.probabilities[row]
    of_true = shares[classes == target]
    image, why = _thumbnail(pictures, int(predictions.indices[row]), path)
    return Mistake(
        path,
        class_names[target],
        class_names[int(classes[0])] if shares[0].isfinite() else _NO_ANSWER,
        percent=_percent(shares[0]),
        true_percent=_percent(of_true[0]) if len(of_true) else None,
        image=image,
        why_no_image=why,
    )


def _percent(share: torch.Tensor) -> float:
    return 100 * float(share)


def _thumbnail(pictures: Pictures | None, place: int, path: str) -> tuple[str, str]:
    """Return (data URI, why there is none)."""
    if pictures is None:
        return "", "the pictures were not there"
    try:
        return pictures.thumbnail(place, path), ""
    # Moved, damaged since, a server that is down: the page says so and has all the rest.
    except Exception as error:
        return "", one_line(error, with_type=True)
