"""What fine-tuning finds out by itself: the parts of a folder, the network of weights, the data.

Each function returns configuration keys and values, or lines for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from lib.checkpoint import read_weights
from lib.data import ImageList
from lib.data.bad_images import describe_failure
from lib.data.packed import is_packed
from lib.models.guess import guess_arch
from lib.stores import is_url
from lib.weights import published

NONE = "none"  # --pretrained none: from scratch
_VALIDATION_FOLDERS = ("val", "valid", "validation", "test")
_MUCH_LARGER, _NUM_NAMED = 5, 3


def folder_settings(data_path: str) -> list[str]:
    """Return where a folder has its pictures to train on and to validate with.

    It may hold train/ and val/ (or valid/, validation/, test/), train/ alone, or class folders;
    a packed data set says so itself.
    Raises FileNotFoundError where there is no such folder.
    """
    folder = Path(data_path)
    if not is_url(data_path) and not folder.is_dir():
        raise FileNotFoundError(f"no such data folder: {folder}")
    if is_packed(data_path):
        return ["DATASET.VAL_SHARE", "0"]
    name = ["DATASET.DATASET", folder.resolve().name or "finetune"]
    if not (folder / "train").is_dir():
        return [*name, "DATASET.TRAIN_SET", "."]
    found = next((part for part in _VALIDATION_FOLDERS if (folder / part).is_dir()), None)
    if found is None:
        return name
    return [*name, "DATASET.TEST_SET", found, "DATASET.VAL_SHARE", "0"]


def network_settings(pretrained: str | None, arch: str | None) -> list[str]:
    """Return the network of `--pretrained` and `--arch`; None: the configuration's.

    Weights tell their network by their name, or by what is in their file.
    Raises what `read_weights` raises.
    """
    settings = ["MODEL.PRETRAINED", ""] if pretrained == NONE else []
    if arch is None and pretrained not in (None, NONE):
        entry = published(str(pretrained))
        arch = entry.arch if entry else guess_arch(read_weights(str(pretrained)).weights)
    return settings if arch is None else [*settings, "MODEL.NAME", arch]


def survey(
    images: ImageList, val_images: ImageList, *, progress: Callable[[list[str]], Iterable[str]]
) -> list[str]:
    """Return what is worth knowing of the data before the training begins, line by line.

    Only the heads of the files are read: what is damaged further on is met in training, and goes
    into its ledger. `progress` gets the paths and gives them back one by one.
    """
    names = images.class_names
    counts = Counter(images.targets)
    order = sorted(range(len(names)), key=lambda number: counts[number])
    least, most = order[0], order[-1]
    lines = [
        f"your pictures: {len(names)} classes, {len(images)} to train on, {len(val_images)} to "
        "validate with",
        f"pictures to train on a class: {counts[least]} ({names[least]}) to {counts[most]} "
        f"({names[most]}), {counts[order[len(order) // 2]]} in the middle",
    ]
    if counts[most] > _MUCH_LARGER * max(1, counts[least]):
        lines.append(
            "[Warning] the classes are unequal: TRAIN.CLASS_WEIGHTS balanced gives the pictures "
            "of the small ones more weight"
        )
    if images.contents is None:
        bad = _unreadable(progress([*images.paths, *val_images.paths]))
        lines += [_bad_line(bad)] if bad else []
    return lines


def _unreadable(paths: Iterable[str]) -> list[tuple[str, str]]:
    bad = []
    for path in paths:
        try:
            with Image.open(path):
                pass
        except Exception as error:  # damaged files make Pillow raise nearly anything
            bad.append((path, describe_failure(error)))
    return bad


def _bad_line(bad: list[tuple[str, str]]) -> str:
    named = "; ".join(f"{path}: {reason}" for path, reason in bad[:_NUM_NAMED])
    more = "; ..." if len(bad) > _NUM_NAMED else ""
    return f"[Warning] {len(bad)} files cannot be opened and will be left out: {named}{more}"
