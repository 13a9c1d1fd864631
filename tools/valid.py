"""Evaluate weights: python tools/valid.py DATA --testModel FILE [--cfg YAML] [KEY VALUE ...]

Network, input size and class names are those that the weights record, or the config.yaml and
classes.json beside them; the log says which. A --cfg that contradicts them is refused.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path
from yacs.config import CfgNode

from lib.config.load import default_run_folder, load_config
from lib.config.recipe import INPUT_KEYS
from lib.runtime.cli import ArgumentParser, PartlyFailed, run_script
from lib.runtime.csv_text import NOTE
from lib.runtime.environment import read_environment
from lib.runtime.launch import Cluster, end_with_parent
from lib.runtime.run_folder import BEST, CONFIG, EVAL, LOGS

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
    overrides = _common.overrides_of(args, environment, _KEYS)
    config, run = _places(args, overrides)
    weights = config.TEST.MODEL_FILE or run / BEST
    folder = args.out or run / EVAL

    from lib.evaluation.classes import ClassChoice
    from lib.evaluation.run import EvalRequest, evaluate_weights
    from lib.models.weights.find import find_weights
    from lib.runtime.distributed import Processes  # loads torch, whose failure is explained

    if environment.ranks.local_rank == 0 and config.TEST.MODEL_FILE:
        find_weights(weights)  # the others wait for this process to join them
    request = EvalRequest(
        _common.data_path_of(args, config),
        weights,
        folder,
        args.cfg.stem if args.cfg else run.resolve().name,
        cfg=args.cfg,
        overrides=tuple(overrides),
        per_class=args.per_class,
        confusion=args.confusion,
        calibration=args.calibration,
        predictions=args.predictions,
        real_labels=args.real,
        classes=ClassChoice(args.class_map, args.train_classes, args.subset),
    )

    def work(processes: Processes) -> None:
        metrics = evaluate_weights(request, processes).metrics
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


def _places(args: argparse.Namespace, overrides: Sequence[str]) -> tuple[CfgNode, Path]:
    """Return the configuration that says where data and weights lie, and the run folder.

    The input of the network is the resolver's: keys that choose it count with what is recorded.
    """
    pairs = zip(overrides[::2], overrides[1::2], strict=False)
    words = [word for pair in pairs if pair[0] not in INPUT_KEYS for word in pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are told where the weights are resolved
        config = load_config(args.cfg, words)
        run = default_run_folder(config, args.cfg or _common.W18_RECIPE)
        given = Path(config.TEST.MODEL_FILE or run / BEST).expanduser()
        own = given if given.is_dir() else given.parent
        if args.cfg is None and (own / CONFIG).is_file():
            return load_config(own / CONFIG, words), own
    return config, run


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    _common.add_run_options(
        parser,
        out_help=f"folder for the results (default: eval/ in {_common.RUN_FOLDER})",
        cfg=None,
        cfg_help="experiment yaml (default: config.yaml beside the weights, or what they record)",
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
