"""What is worth knowing of the pictures before the training begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from yacs.config import CfgNode

from lib.data.bad_images import BadImage, BadImageLedger, lost_classes_remark
from lib.data.image_list import ImageList
from lib.data.rgb import EXIF, read_head
from lib.runtime.text import counted, one_line, printable, quoted

_MUCH_LARGER, _NUM_NAMED = 5, 3


@dataclass
class _Heads:
    """What the heads of the pictures' files say."""

    bad: dict[str, BadImage] = field(default_factory=dict)  # by path
    num_turned: int = 0
    num_transparent: int = 0
    num_deep: int = 0

    def look_at(self, path: str) -> None:
        try:
            head = read_head(path)
        except Exception as error:  # damaged files make Pillow raise nearly anything
            self.bad[path] = BadImage(path, one_line(error, with_type=True))
            return
        self.num_turned += head.is_turned
        self.num_transparent += head.has_transparency
        self.num_deep += head.is_deep

    def lines(self, orientation: str) -> list[str]:
        """Return what happens to pictures of other kinds than the usual."""
        turned = (
            "turned upright (DATASET.ORIENTATION exif)"
            if orientation == EXIF
            else "taken as they are stored; DATASET.ORIENTATION exif turns them upright"
        )
        kinds = (
            (self.num_turned, "are stored turned (EXIF orientation)", turned),
            (self.num_transparent, "have transparency", "taken without it, as opaque"),
            (self.num_deep, "are grey with more than 8 bits", "scaled to 8"),
        )
        return [f"of your pictures {num} {what}: {done}" for num, what, done in kinds if num]


def survey(
    images: ImageList,
    val_images: ImageList,
    settings: CfgNode,
    *,
    progress: Callable[[list[str]], Iterable[str]],
) -> list[str]:
    """Return what is worth knowing of the data before the training begins, line by line.

    Only the heads of the files are read: what is damaged further on is met in training, and goes
    into its ledger. `settings` is the configuration's DATASET. `progress` gets the paths and gives
    them back one by one.
    Raises ValueError where more files cannot be opened than DATASET.BAD_IMAGES_MAX_SHARE allows.
    """
    lines = _counts(images, num_val_images=len(val_images))
    if images.contents is not None:
        return lines
    heads = _Heads()
    for path in progress([*images.paths, *val_images.paths]):
        heads.look_at(path)
    lines += heads.lines(settings.ORIENTATION)
    for what, part in (("to train on", images), ("to validate with", val_images)):
        bad = [heads.bad[path] for path in part.paths if path in heads.bad]
        _check_share(bad, part, what, settings)
        if remark := lost_classes_remark(part, bad):
            lines.append(f"{remark} ({what})")
    return [*lines, _bad_line(list(heads.bad.values()))] if heads.bad else lines


def _counts(images: ImageList, *, num_val_images: int) -> list[str]:
    names = [quoted(name) for name in images.class_names]
    counts = Counter(images.targets)
    order = sorted(range(len(names)), key=lambda number: counts[number])
    least, most = order[0], order[-1]
    lines = [
        f"your pictures: {counted(len(names), 'class', 'classes')}, {len(images)} to train on, "
        f"{num_val_images} to validate with",
        f"pictures to train on a class: {counts[least]} ({names[least]}) to {counts[most]} "
        f"({names[most]}), {counts[order[len(order) // 2]]} in the middle",
    ]
    if counts[most] > _MUCH_LARGER * max(1, counts[least]):
        lines.append(
            "[Warning] the classes are unequal: TRAIN.CLASS_WEIGHTS balanced gives the pictures "
            "of the small ones more weight"
        )
    return lines


def _check_share(bad: Sequence[BadImage], images: ImageList, what: str, settings: CfgNode) -> None:
    """Raise ValueError where these bad files would end the run."""
    allowed = settings.BAD_IMAGES_MAX_SHARE
    if settings.BAD_IMAGES == "skip" and len(bad) > allowed * len(images):
        raise ValueError(
            f"{len(bad)} of {len(images)} pictures {what} cannot be opened, a share of "
            f"{len(bad) / len(images):.4g} where DATASET.BAD_IMAGES_MAX_SHARE {allowed:g} is "
            f"allowed ({_named(bad)}): repair or remove them, or raise that key"
        )
    ledger = BadImageLedger(
        None, policy=settings.BAD_IMAGES, max_share=allowed, num_images=len(images)
    )
    ledger.record(bad)


def _bad_line(bad: Sequence[BadImage]) -> str:
    files = counted(len(bad), "file")
    return f"[Warning] {files} cannot be opened and will be left out: {_named(bad)}"


def _named(bad: Sequence[BadImage]) -> str:
    named = "; ".join(f"{quoted(path)}: {printable(why)}" for path, why in bad[:_NUM_NAMED])
    return named + ("; ..." if len(bad) > _NUM_NAMED else "")
