"""Pictures to input files of the network: python3 imagenet_torch_preprocess.py hrnet SRC DST

DST/<stem>.bin of each: short side to 256, centre crop 224, float32 C x H x W, normalised. Started
again, it goes on where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lib.config.recipe import Recipe
from lib.offline.recipe_options import AskedRecipe, add_recipe_options, asked_recipe
from lib.runtime.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script, say


def main() -> int:
    """Prepare a folder of pictures and return the exit code."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("model", choices=("hrnet",), help="whose input to prepare")
    add("source", metavar="SRC", type=Path, help="folder of pictures, or of class folders")
    add("target", metavar="DST", type=Path, help="folder for the results")
    add("--limit", type=int, default=0, help="only so many pictures, the first by path; 0: all")
    add("--workers", type=int, default=0, help="processes; 0: as many as cores")
    add("--image_size", type=int, help="side of the result in pixels (default: 224, or --recipe's)")
    add_recipe_options(parser)
    args = parser.parse_args()
    if args.image_size is not None and args.image_size < 1:
        raise ValueError(f"--image_size {args.image_size}: give 1 or more, such as 224")

    from lib.offline.preprocess import PreprocessOptions, preprocess
    from lib.runtime.text import printable, quoted, shorten

    asked = asked_recipe(args) or AskedRecipe()
    recipe = asked.for_crop(args.image_size)
    options = PreprocessOptions(recipe, args.workers, args.limit)
    report = preprocess(args.source, args.target, options)
    say(
        f"{report.num_written} prepared, {report.num_already_there} were there; {args.target} has "
        f"{report.num_in_all}"
    )
    if recipe != Recipe.for_crop(recipe.crop):
        say(f"prepared as {recipe}")
    for line in report.left_out.lines(args.source):
        say(line)
    failures = [f"{quoted(path)}: {printable(reason)}" for path, reason in report.failed.items()]
    for warning in (*failures, *report.warnings):
        say(f"[Warning] {warning}", file=sys.stderr)
    if report.failed:
        raise PartlyFailed(
            f"{len(report.failed)} pictures can't be read: {shorten(list(report.failed))}; repair "
            "or remove them and run the same command again"
        )
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
