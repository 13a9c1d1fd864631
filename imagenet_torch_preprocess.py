"""Pictures to input files of the network: python3 imagenet_torch_preprocess.py hrnet SRC DST

DST/<stem>.bin of each: short side to 256, centre crop 224, float32 C x H x W, normalised. Started
again, it goes on where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lib.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script


def main() -> int:
    """Prepare a folder of pictures and return the exit code."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("model", choices=("hrnet",), help="whose input to prepare")
    add("source", metavar="SRC", type=Path, help="folder of pictures, or of class folders")
    add("target", metavar="DST", type=Path, help="folder for the results")
    add("--limit", type=int, default=0, help="only so many pictures, the first by path; 0: all")
    add("--workers", type=int, default=0, help="processes; 0: as many as cores")
    add("--image_size", type=int, default=224, help="side of the result in pixels")
    args = parser.parse_args()

    from lib.offline.preprocess import PreprocessOptions, preprocess
    from lib.pictures import shorten

    options = PreprocessOptions(args.image_size, args.workers, args.limit)
    report = preprocess(args.source, args.target, options)
    print(
        f"{report.num_written} prepared, {report.num_already_there} were there; {args.target} has "
        f"{report.num_in_all}"
    )
    if report.others:
        print(f"left out {len(report.others)} files that are no pictures: {shorten(report.others)}")
    for path, reason in report.failed.items():
        print(f"[Warning] {path}: {reason}", file=sys.stderr)
    if report.failed:
        raise PartlyFailed(
            f"{len(report.failed)} pictures can't be read: {shorten(list(report.failed))}; repair "
            "or remove them and run the same command again"
        )
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
