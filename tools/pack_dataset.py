"""Pack class folders into tar shards to train on: python tools/pack_dataset.py DATA OUT"""

from __future__ import annotations

import argparse
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.config.recipe import ORIENTATIONS
from lib.runtime.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script, say
from lib.runtime.text import counted

_QUALITY = 90


def main() -> int:
    """Pack a data set, or verify one that is packed."""
    args = _parse()
    if args.verify is not None:
        _verify(args.verify)
        return EXIT_OK

    from lib.data.packed.options import PackOptions
    from lib.data.packed.packing import pack
    from lib.runtime.run_folder import BAD_IMAGES
    from lib.runtime.text import printable, quoted

    options = PackOptions(
        resize=args.resize,
        quality=_QUALITY if args.quality is None else args.quality,
        shard_mb=args.shard_size,
        num_workers=args.workers,
        parts=(args.train_set, args.val_set),
        orientation=args.orientation,
    )
    report = pack(args.data, args.out, options)
    for name, part in report.index.parts.items():
        num_megabytes = sum(shard.num_bytes for shard in part.shards) / 1e6
        say(
            f"{name}: {counted(part.pictures.num_images, 'picture')} in "
            f"{counted(len(part.shards), 'shard')}, "
            f"{num_megabytes:.1f} MB; {report.num_kept[name]} shards were there already"
        )
    for line in report.left_out.lines(args.data):
        say(line)
    if report.failed:
        path, reason = next(iter(report.failed.items()))
        raise PartlyFailed(
            f"{len(report.failed)} pictures can't be read and are left out, such as "
            f"{quoted(path)} ({printable(reason)}); {args.out / BAD_IMAGES} lists them"
        )
    return EXIT_OK


def _verify(root: str) -> None:
    """Raise PartlyFailed that names the files that are damaged."""
    from lib.data.packed.verify import damaged_files

    wrong, num_files = damaged_files(root)
    if wrong:
        named = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        raise PartlyFailed(
            f"{len(wrong)} of {num_files} files are damaged ({named}): remove them and pack the "
            "same pictures again, which makes only what is missing"
        )
    say(f"all {num_files} files of {root} are what they were when they were packed")


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", type=Path, help="holds train/, val/ or both")
    add("out", metavar="OUT", nargs="?", type=Path, help="folder for the shards and their index")
    add("--resize", type=int, help="shrink larger pictures to this short side in pixels")
    add("--quality", type=int, help=f"of the JPEG files that --resize writes ({_QUALITY})")
    what = "of what --resize writes: as stored, or turned upright by its EXIF data"
    add("--orientation", default="ignore", choices=ORIENTATIONS, help=what)
    add("--shard_size", metavar="MB", type=float, default=256, help="largest shard in megabytes")
    add("--workers", type=int, default=0, help="decoding processes; 0: one a core")
    add("--train_set", default="train", help="name of the folder to train on")
    add("--val_set", default="val", help="name of the folder to validate with")
    add("--verify", metavar="OUT", help="only check all sums of a packed data set")
    args = parser.parse_args()
    if args.verify is None and args.out is None:
        parser.error("DATA and OUT are needed, or --verify OUT")
    if args.verify is not None and args.data is not None:
        parser.error("--verify takes one packed data set and nothing else")
    if args.quality is not None and args.resize is None:
        parser.error(
            "--quality has a meaning with --resize only: else files are copied as they are"
        )
    return args


if __name__ == "__main__":
    run_script(main)
