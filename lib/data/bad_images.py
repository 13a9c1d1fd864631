"""Files that can't be decoded: what a batch says about them, and the ledger of a whole run."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lib.data.image_list import ImageList
from lib.runtime.files import append_lines
from lib.runtime.text import printable, quoted, shorten

POLICIES = ("skip", "fail")

_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


class BadImage(NamedTuple):
    """A file that couldn't be decoded. Named, so that pinning a batch keeps it as it is."""

    path: str
    reason: str


BadImages = list[BadImage]


def in_one_line(text: str) -> str:
    """Return a path as a field of a .tsv file: tab, newline and carriage return as escapes."""
    return text.translate(_ESCAPES)


def lost_classes_remark(images: ImageList, bad: Iterable[BadImage]) -> str:
    """Return a warning that names the classes of which no picture can be read; '' for none."""
    paths = {image.path for image in bad}
    if not paths:
        return ""
    total = Counter(images.targets)
    lost = Counter(
        target
        for path, target in zip(images.paths, images.targets, strict=True)
        if in_one_line(path) in paths
    )
    names = [images.class_names[target] for target in sorted(lost) if lost[target] == total[target]]
    if not names:
        return ""
    what = "1 class has" if len(names) == 1 else f"{len(names)} classes have"
    return f"[Warning] {what} no picture that can be read: {shorten(names)}"


class BadImageLedger:
    """Every bad file of a run, once, and the decision whether the run may go on.

    The file has a line `path<TAB>reason` for each bad file. An existing one is added to, so a
    resumed run repeats no line. Only the files that this process has met, or was told of, count
    for the decision: what was repaired before a resume is no longer held against the run, and
    ranks that exchange their lists decide alike.

    Args:
        path: the ledger, created with the first bad file; None keeps the account in memory only
            (every process but rank 0).
        policy: 'skip' goes on without the picture, 'fail' ends the run at the first.
        max_share: with 'skip', the share of the pictures (0..1) that may be bad.
        num_images: how many pictures there are in all.

    Raises:
        ValueError: an unknown policy, or a share outside 0..1.
    """

    def __init__(
        self, path: Path | None, *, policy: str, max_share: float, num_images: int
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"DATASET.BAD_IMAGES is {policy!r}: use one of {', '.join(POLICIES)}")
        if not 0 <= max_share <= 1:
            raise ValueError(f"DATASET.BAD_IMAGES_MAX_SHARE is {max_share}: use a share in 0..1")
        self._path = path
        self._policy = policy
        self._max_share = max_share
        self._num_images = num_images
        self._reasons: dict[str, str] = {}
        self._listed = _read_listed(path) if path is not None and path.exists() else set[str]()

    @property
    def num_bad(self) -> int:
        """How many different bad files this process has met or was told of."""
        return len(self._reasons)

    @property
    def bad_images(self) -> tuple[BadImage, ...]:
        """Those files, in the order they were met: what ranks exchange for `merge`."""
        return tuple(BadImage(path, reason) for path, reason in self._reasons.items())

    def record(self, bad: Iterable[BadImage]) -> None:
        """Add a batch's bad files to the account, and to the ledger those that it lacks.

        Raises:
            ValueError: the policy is 'fail' and a file is bad, or the share is above the allowed.
        """
        batch = [BadImage(*map(in_one_line, image)) for image in bad]
        if not batch:
            return
        for path, reason in batch:
            self._reasons.setdefault(path, reason)
        self._append_unlisted()
        if self._policy == "fail":
            raise ValueError(
                f"picture {quoted(batch[0].path)} can't be read ({printable(batch[0].reason)}): "
                "repair or remove it, or set DATASET.BAD_IMAGES to skip"
            )
        self._check_share()

    def merge(self, gathered: Iterable[Iterable[BadImage]]) -> None:
        """Add the bad files of all ranks, one list a rank; the same call on each keeps them equal.

        Raises:
            ValueError: as `record`.
        """
        self.record([image for bad in gathered for image in bad])

    def _append_unlisted(self) -> None:
        unlisted = [image for image in self.bad_images if image.path not in self._listed]
        if self._path is None or not unlisted:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{path}\t{reason}\n" for path, reason in unlisted)
        append_lines(lines.encode("utf-8", errors="surrogateescape"), self._path)
        self._listed.update(image.path for image in unlisted)

    def _check_share(self) -> None:
        if self.num_bad <= self._max_share * self._num_images:
            return
        where = self._path if self._path is not None else "rank 0's bad_images.tsv"
        raise ValueError(
            f"{self.num_bad} of {self._num_images} pictures can't be read, a share of "
            f"{self.num_bad / max(self._num_images, 1):.4g} where {self._max_share:g} is allowed: "
            f"repair or remove the files listed in {where}, or raise "
            "DATASET.BAD_IMAGES_MAX_SHARE"
        )


def _read_listed(path: Path) -> set[str]:
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    return {line.partition("\t")[0] for line in text.split("\n") if "\t" in line}
