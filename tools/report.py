"""Make report.html of a training run: python tools/report.py RUN [--data_path DIR]

It is made of what the run folder holds. The pictures of the surest mistakes are taken from the
data, where they are still there; where the run folder has no predictions of its best weights, and
--data_path is given, the weights are evaluated first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import _common
import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime import run_folder
from lib.runtime.cli import ArgumentParser, run_script, say
from lib.runtime.environment import read_environment
from lib.runtime.files import is_url
from lib.runtime.launch import Cluster


def main() -> int:
    """Read the run folder, evaluate if need be, write the page."""
    args = _parse()

    from lib.report.mistakes import find_pictures  # loads torch: not for --help
    from lib.report.page import write_report  # loads torch: not for --help
    from lib.report.run_files import read_run  # loads torch: not for --help

    run = read_run(args.run)
    data_path = _data_path(args.data_path)
    if run.kept is None and run.best_epoch is not None and data_path:
        say(f"{run.why_none_kept}: the best weights are evaluated")
        with TemporaryDirectory() as folder:  # RUN/eval is tools/valid.py's
            _evaluate(args, data_path, run.best_epoch, folder=Path(folder))
        run = read_run(args.run)
    for left_out in run.left_out:
        say(f"[Warning] left out: {left_out}")
    pictures = find_pictures(run, data_path)
    if run.kept is None:
        say(f"[Warning] {run.why_none_kept}: give --data_path to evaluate the best weights")
    elif pictures is None:
        say("[Warning] the pictures are not there any more: give --data_path to show mistakes")
    say(f"the report is {write_report(run, pictures)}")
    return 0


def _data_path(given: str | None) -> Path | str | None:
    """Return what the command line says, if it does; raise FileNotFoundError where it is wrong."""
    if given is None or is_url(given):
        return given
    if not Path(given).is_dir():
        raise FileNotFoundError(f"no such data folder: {given}")
    return Path(given)


def _evaluate(
    args: argparse.Namespace, data_path: Path | str, best_epoch: int, *, folder: Path
) -> None:
    """Evaluate the best weights; their predictions go to the run, all else to `folder`."""
    from lib.evaluation.run import EvalRequest, evaluate_weights
    from lib.runtime.distributed import Processes

    overrides = []
    for key, value in (("WORKERS", args.workers), ("TEST.BATCH_SIZE_PER_GPU", args.bs)):
        overrides += [] if value is None else [key, str(value)]
    request = EvalRequest(
        data_path,
        args.run / run_folder.BEST,
        folder,
        args.run.resolve().name,
        overrides=tuple(overrides),
        save_predictions=(args.run / run_folder.PREDICTIONS, best_epoch),
    )

    def work(processes: Processes) -> None:
        evaluate_weights(request, processes)

    _common.run_on_cards(
        args, read_environment(), Cluster(), log_dir=args.run / run_folder.LOGS, work=work
    )


def _parse() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("run", type=Path, help="run folder of tools/train.py")
    add("--data_path", help="the run's data, where they are not where the run had them")
    add(
        "--device",
        default="auto",
        choices=("auto", "npu", "cuda", "cpu"),
        help="for an evaluation. auto: an npu, else cuda, else the cpu",
    )
    add("--device_id", type=int, default=0, help="which card; ASCEND_DEVICE_ID wins")
    add("--workers", type=int, help="data-loading processes (default: the run's)")
    add("--bs", "--batch_size", type=int, help="images a step (default: the run's)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
