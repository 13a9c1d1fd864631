"""What a packing is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lib.data.packed import reading
from lib.data.rgb import IGNORE
from lib.runtime import run_folder
from lib.runtime.checked import shown
from lib.runtime.environment import check_num_workers

_TAKEN = (reading.INDEX, run_folder.BAD_IMAGES)


@dataclass(frozen=True)
class PackOptions:
    """How pictures are packed.

    Args:
        resize: short side in pixels of larger pictures; None: all are copied as they are.
        quality: of JPEG files written anew, 1..95.
        shard_mb: a shard's largest size in megabytes; a single picture may be larger.
        num_workers: decoding processes; 0: one a core.
        parts: names of the folders to pack, those of them that there are.
        orientation: of what is resized; see `lib.data.rgb.open_rgb`.

    Raises:
        ValueError: a number outside its range, or an orientation for what is copied.
    """

    resize: int | None = None
    quality: int = 90
    shard_mb: float = 256
    num_workers: int = 0
    parts: tuple[str, ...] = ("train", "val")
    orientation: str = IGNORE

    def __post_init__(self) -> None:
        for name, value, is_good, allowed in (
            ("--resize", self.resize, self.resize is None or self.resize >= 1, "1 or more"),
            ("--quality", self.quality, 1 <= self.quality <= 95, "1 to 95"),
            ("--shard_size", self.shard_mb, self.shard_mb > 0, "more than 0"),
            ("--workers", self.num_workers, self.num_workers >= 0, "0 or more"),
        ):
            if not is_good:
                raise ValueError(f"{name} is {value}: use {allowed}")
        if self.orientation != IGNORE and self.resize is None:
            raise ValueError(
                f"--orientation {self.orientation} has a meaning with --resize only: else files "
                "are copied as they are, and DATASET.ORIENTATION decides when they are read"
            )
        for name in self.parts:
            if name.startswith(".") or name != os.path.basename(name) or name in ("", *_TAKEN):
                raise ValueError(
                    f"--train_set and --val_set name folders in DATA, and {shown(name)} is no such "
                    "name: it has no / and does not begin with a dot"
                )
        check_num_workers("--workers", self.num_workers)

    @property
    def recipe(self) -> dict[str, object]:
        """What decides about the bytes of the shards."""
        quality = None if self.resize is None else self.quality
        recipe: dict[str, object] = {
            "resize": self.resize,
            "quality": quality,
            "shard_mb": self.shard_mb,
        }
        # The usual is left out, so that packings of before it could be asked for go on.
        return recipe if self.orientation == IGNORE else recipe | {"orientation": self.orientation}
