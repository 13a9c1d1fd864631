"""Accuracy of predictions: python3 imagenet_acc_eval.py RESULT_DIR LABELS OUT_DIR result.json"""

from __future__ import annotations

import sys
from pathlib import Path

from lib.offline.element_type import ELEMENT_TYPES
from lib.runtime.cli import EXIT_OK, ArgumentParser, PartlyFailed, run_script, say


def main() -> int:
    """Score a folder of predictions and return the exit code."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("predictions", metavar="RESULT_DIR", type=Path, help="<stem>_<output>.txt, .bin or .npy")
    add("labels", metavar="LABELS", type=Path, help="lines <file> <class number, from 0>")
    add("folder", metavar="OUT_DIR", type=Path, help="where the result goes; made if missing")
    add("name", metavar="NAME", help="file name of the result, such as result.json")
    add("--allow-missing", action="store_true", help="score what is whole, leave out the rest")
    add("--topk", type=int, default=5, help="up to which place the right class counts")
    add("--per_class", metavar="FILE.csv", type=Path, help="also write a table of the classes")
    add(
        "--confusion",
        metavar="FILE.png",
        type=Path,
        help="also draw which class is taken for which",
    )
    add("--num_outputs", type=int, default=0, help="outputs of the network; 0: as the files say")
    add(
        "--dtype",
        choices=ELEMENT_TYPES,
        help="element type of .bin files; without it the size and the values tell",
    )
    args = parser.parse_args()

    from lib.offline.ranking import FileForm
    from lib.offline.scores import ScoreFiles, score_folder, write_scores
    from lib.runtime.files import check_outputs

    if args.num_outputs < 0:
        raise ValueError(f"--num_outputs {args.num_outputs}: 1 or more, or 0 for unknown")
    files = ScoreFiles(args.folder / args.name, args.per_class, args.confusion, args.topk)
    outputs = {"NAME": files.result, "--per_class": args.per_class, "--confusion": args.confusion}
    check_outputs(outputs, (args.labels, *args.predictions.glob("**/*")))
    files.result.unlink(missing_ok=True)  # of an earlier score; it would pass for this one's
    known = FileForm(args.num_outputs, args.dtype or "")
    scores = score_folder(args.predictions, args.labels, known=known)
    problems = "; ".join(scores.problem_lines())
    if problems and (not args.allow_missing or not scores.num_images):
        raise PartlyFailed(
            f"the predictions are not whole, so there is no score: {problems}. Mend them, or score "
            "the others with --allow-missing"
        )
    for warning in filter(None, (problems, *scores.warnings())):
        say(f"[Warning] {warning}", file=sys.stderr)
    say(write_scores(scores, files))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
