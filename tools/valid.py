"""Evaluate weights: python tools/valid.py DATA --cfg YAML --testModel FILE [KEY VALUE ...]"""

from __future__ import annotations

import argparse
from pathlib import Path

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.cli import ArgumentParser, PartlyFailed, run_script
from lib.config import default_run_folder
from lib.csv_text import NOTE
from lib.environment import read_environment
from lib.launch import Cluster, end_with_parent
from lib.run_folder import BEST, EVAL, LOGS

_KEYS = {
    "workers": ("WORKERS",),
    "bs": ("TEST.BATCH_SIZE_PER_GPU",),
    "testModel": ("TEST.MODEL_FILE",),
    "modelDir": ("OUTPUT_DIR",),
}


def main() -> int:
    """Parse the command line and evaluate."""
    args = _parse()
    environment = read_environment()
    if environment.launched:
        end_with_parent()
    config = _common.configured(args, environment, _KEYS)
    run = default_run_folder(config, args.cfg)
    folder = args.out or run / EVAL

    from lib.distributed import Processes  # loads torch, whose failure is explained
    from lib.evaluation import ClassChoice
    from lib.evaluator import EvalRequest, evaluate_weights
    from lib.weights import find_weights

    weights = config.TEST.MODEL_FILE or run / BEST
    if environment.ranks.local_rank == 0 and config.TEST.MODEL_FILE:
        find_weights(weights)  # the others wait for this process to join them
    request = EvalRequest(
        _common.data_path_of(args, config),
        weights,
        folder,
        args.cfg.stem,
        per_class=args.per_class,
        confusion=args.confusion,
        calibration=args.calibration,
        predictions=args.predictions,
        real_labels=args.real,
        classes=ClassChoice(args.class_map, args.train_classes, args.subset),
    )

    def work(processes: Processes) -> None:
        metrics = evaluate_weights(config, request, processes).metrics
        if metrics.num_not_finite and processes.ranks.is_main:
            raise PartlyFailed(
                f"the outputs for {metrics.num_not_finite} of {metrics.num_images} images are NaN "
                "or infinite; these images are counted as wrong"
            )

    _common.run_on_cards(
        args,
        environment,
        Cluster(args.cards),
        log_dir=args.log_dir or folder / LOGS,
        work=work,
    )
    return 0


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(
        parser, out_help=f"folder for the results (default: eval/ in {_common.RUN_FOLDER})"
    )
    add = parser.add_argument
    add(
        "--testModel",
        help="weights: a file, a name of weights.py, or an address; without it model_best.pth.tar "
        "of the run folder",
    )
    add("--per_class", action="store_true", help=f"also write per_class.csv; {NOTE}")
    add("--confusion", action="store_true", help="also draw confusion.png")
    add(
        "--calibration",
        action="store_true",
        help="also say how far probabilities can be trusted, and draw reliability.png; needs "
        "torchmetrics",
    )
    what = f"CSV file for the five likeliest classes of each picture; {NOTE}"
    add("--predictions", type=Path, help=what)
    add("--real", type=Path, help="ReaL labels of ImageNet's validation set: real.json")
    add(
        "--class_map",
        type=Path,
        help="file that says which output a class folder is (lines `<class folder> <output>`, or "
        "a .json of {folder: output}); `numbers` where the folders' names say it",
    )
    add(
        "--train_classes",
        type=Path,
        help="class names of weights that come without: the class folders trained on, a "
        "classes.json, or a file with a name a line",
    )
    add(
        "--subset",
        action="store_true",
        help="compare only the outputs whose classes have pictures, as for ImageNet-A and -R",
    )
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
