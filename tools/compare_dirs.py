"""Compare two folders of predictions: python tools/compare_dirs.py A B [--tolerance 1e-3]"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.offline.element_type import ELEMENT_TYPES
from lib.offline.prediction_diff import diff_folders, report_lines
from lib.runtime.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script, say


def main() -> int:
    """Print how the folders differ and return the exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder_a", type=Path, metavar="A", help="*_0.bin, *_0.npy or *_0.txt")
    parser.add_argument("folder_b", type=Path, metavar="B", help="the same samples, any format")
    parser.add_argument(
        "--tolerance", type=float, help="largest logit difference that is let pass (exit code 1)"
    )
    for side in "ab":
        what = f"element type of {side.upper()}'s .bin files; without it size and values tell"
        parser.add_argument(f"--dtype_{side}", choices=ELEMENT_TYPES, help=what)
    parser.add_argument("--json", action="store_true", help="print JSON, with all names")
    args = parser.parse_args()
    if args.tolerance is not None and not args.tolerance >= 0:
        raise ValueError(f"--tolerance {args.tolerance}: a number >= 0 is needed")
    diff = diff_folders(
        args.folder_a, args.folder_b, dtype_a=args.dtype_a or "", dtype_b=args.dtype_b or ""
    )
    if args.json:
        say(*json.dumps(asdict(diff), indent=2).split("\n"))
    else:
        say(*report_lines(diff))
    if not diff.is_complete:
        raise PartlyFailed(
            f"{len(diff.only_in_a)} files are only in A, {len(diff.only_in_b)} only in "
            f"B, {len(diff.broken)} can't be compared"
        )
    if args.tolerance is not None and diff.largest_difference > args.tolerance:
        raise PartlyFailed(
            f"the largest logit difference, {diff.largest_difference:.3e}, is above "
            f"--tolerance {args.tolerance}"
        )
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
