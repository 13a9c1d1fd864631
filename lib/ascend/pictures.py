"""Pictures for an .om with AIPP, which normalises by itself: uint8 files, rows of RGB pixels."""

from __future__ import annotations

from pathlib import Path

from lib.cli import PartlyFailed
from lib.transforms import eval_pixels, eval_resize, is_picture, open_rgb


def crop_margin(side: int) -> int:
    """Pixels that AIPP cuts off on each side of its input: 16 for 224.

    An even number: only then is a crop of a crop the crop that training and evaluation make, as
    the offset's halves are rounded to even.
    """
    return (eval_resize(side) - side) // 4 * 2


def uint8_size(side: int) -> int:
    """The side of AIPP's square input for a network that sees `side` pixels: 256 for 224."""
    return side + 2 * crop_margin(side)


def write_uint8_bins(source: Path, target: Path, *, side: int) -> int:
    """Write `<stem>.bin` (uint8, H x W x 3) of each picture under `source`; return how many.

    Cutting `crop_margin` pixels off each side gives exactly what `lib.transforms` gives for
    `side`. Raises ValueError for no picture or two with one stem, and at the end PartlyFailed
    that names the pictures that could not be read.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no such folder of pictures: {source}")
    paths = sorted(path for path in source.rglob("*") if path.is_file() and is_picture(path.name))
    if not paths:
        raise ValueError(f"{source} holds no picture")
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{other} and {path} would both become {path.stem}.bin: rename one")
    target.mkdir(parents=True, exist_ok=True)
    failed = []
    for path in paths:
        try:
            image = open_rgb(path)
            pixels = eval_pixels(image, resize=eval_resize(side), crop=uint8_size(side))
        except Exception as error:  # Pillow's answers to damaged files have no common base
            failed.append(f"{path} ({' '.join(str(error).split())})")
        else:
            (target / f"{path.stem}.bin").write_bytes(pixels.tobytes())
    if failed:
        raise PartlyFailed(f"{len(failed)} of {len(paths)} pictures not read: {'; '.join(failed)}")
    return len(paths)
