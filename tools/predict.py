"""Say what pictures show: python tools/predict.py IMAGE|FOLDER|PATTERN ... --checkpoint FILE

The network is that of --cfg, else of the config.yaml beside the weights, else the one that the
weights' shapes tell. Class names come from the weight file or from classes.json beside it;
1000 classes without names are ImageNet's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import ArgumentParser, run_script
from lib.runtime.csv_text import NOTE
from lib.runtime.environment import read_environment
from lib.runtime.launch import Cluster
from lib.runtime.run_folder import LOGS

_KEYS = {"workers": "WORKERS", "bs": "TEST.BATCH_SIZE_PER_GPU", "precision": "TRAIN.PRECISION"}


def main() -> int:
    """Parse the command line and predict."""
    args = _parse()

    from lib.evaluation.predict.run import PredictRequest, predict_pictures
    from lib.runtime.distributed import Processes  # loads torch, whose failure is explained

    request = PredictRequest(
        tuple(args.pictures),
        args.checkpoint,
        cfg=args.cfg,
        overrides=_overrides(args),
        topk=args.topk,
        out=args.out,
        show=args.show,
        with_cam=args.cam,
        cam_layer=args.cam_layer,
    )

    def work(processes: Processes) -> None:
        predict_pictures(request, processes)

    _common.run_on_cards(args, read_environment(), Cluster(), log_dir=Path(LOGS), work=work)
    return 0


def _overrides(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the options that are keys of the configuration, as KEY VALUE pairs."""
    given = {key: getattr(args, option) for option, key in _KEYS.items()}
    if args.image_size is not None:
        given["MODEL.IMAGE_SIZE"] = [args.image_size, args.image_size]
        given |= {"TEST.IMAGE_SIZE": 0, "TEST.RESIZE": 0}  # those of the yaml are of another size
    return tuple(
        word for key, value in given.items() if value is not None for word in (key, str(value))
    )


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("pictures", nargs="+", metavar="IMAGE|FOLDER|PATTERN", help="what to look at")
    add(
        "--checkpoint",
        "--testModel",
        required=True,
        help="weights: a file, a name of weights.py, or an address",
    )
    add("--cfg", type=Path, help="experiment yaml of the network")
    add("--topk", type=int, default=5, help="how many classes to name")
    add("--out", type=Path, help=f"also write all to this .csv or .json; {NOTE}")
    add("--show", type=Path, help="draw the first pictures with their class: a .png")
    add("--cam", action="store_true", help="in --show, mark what speaks for the class (Grad-CAM)")
    add(
        "--cam_layer",
        default="final",
        choices=("final", "branch1", "branch2", "branch3", "branch4"),
        help="maps that --cam is of: the last ones, of a 32nd of the input's side; or those of a "
        "branch of the last stage, of a 4th, 8th, 16th and 32nd",
    )
    add(
        "--device",
        default="auto",
        choices=("auto", "npu", "cuda", "cpu"),
        help="auto: an npu, else cuda, else the cpu",
    )
    add("--device_id", type=int, default=0, help="which card; ASCEND_DEVICE_ID wins")
    add(
        "--precision",
        default="fp32",
        choices=("auto", "fp32", "hf32", "fp16", "bf16"),
        help="auto: fp16 on npu and cuda, fp32 on the cpu",
    )
    add("--image_size", type=int, help="side of the network's input (default: the yaml's, or 224)")
    add("--workers", type=int, help="decoding processes; -1: cores (default: the yaml's)")
    add("--bs", "--batch_size", type=int, help="pictures a step (default: the yaml's)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
