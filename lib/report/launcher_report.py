"""The launchers' report of a finished run, from its result.json and metrics.jsonl.

Other people's scripts read the three texts made here (the case log, the loss list and the closing
block on stdout), so their keys, order and number formats are fixed. Imports neither torch nor
NumPy: it runs after every launcher and has to be quick.
"""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.runtime.checked import checked, read_json, read_json_lines
from lib.runtime.files import write_atomically

NETWORK = "HRNet_ID1780_for_PyTorch"
_CASE_SUFFIXES = {"train": "acc", "performance": "perf", "eval": "eval"}


@dataclass(frozen=True)
class RunFigures:
    """What a report needs of a result.json."""

    kind: str  # train, performance or eval
    num_cards: int  # processes on all machines
    batch_size: int  # a card
    accuracy_top1: float  # percent
    loss: float  # of the last `Epoch:` line, for eval of the `Test:` line
    images_per_s: float = 0.0  # over all cards; 0 for eval, which reports no speed
    compile_time_s: float | None = None  # the first 2 steps; performance runs only

    @property
    def case_name(self) -> str:
        """The name that CI knows the run by, such as HRNet_ID1780_for_PyTorch_bs256_8p_acc."""
        return f"{NETWORK}_bs{self.batch_size}_{self.num_cards}p_{_CASE_SUFFIXES[self.kind]}"

    @property
    def loss_text(self) -> str:
        """The loss as its log line has it: 4 decimals in a `Test:` line, 5 in an `Epoch:` line."""
        return f"{self.loss:.4f}" if self.kind == "eval" else f"{self.loss:.5f}"

    @property
    def step_time_ms(self) -> float:
        """Milliseconds a step: the images of all cards over images/s."""
        return self.batch_size * self.num_cards * 1000 / self.images_per_s


def read_figures(run_folder: Path) -> RunFigures:
    """Return the figures in `run_folder`/result.json.

    Raises FileNotFoundError without that file, and ValueError where it is no JSON object, is of an
    unknown kind, or lacks a figure that its kind has.
    """
    path = run_folder / "result.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a run writes it when it ends well")
    entries = read_json(path, {"kind": tuple(_CASE_SUFFIXES)})
    kind = entries["kind"]

    is_eval = kind == "eval"
    # The launchers' speed is that of the last `Data Average :` line.
    last = "images_per_s_last_epoch"
    speed = last if last in entries else "images_per_s"
    return RunFigures(
        kind=kind,
        num_cards=int(_figure(entries, "cards", path, above_zero=True)),
        batch_size=int(_figure(entries, "batch_size", path, above_zero=True)),
        accuracy_top1=_figure(entries, "accuracy_top1", path),
        loss=_figure(entries, "loss" if is_eval else "train_loss", path),
        images_per_s=0.0 if is_eval else _figure(entries, speed, path, above_zero=True),
        compile_time_s=_figure(entries, "compile_time_s", path) if kind == "performance" else None,
    )


def read_losses(run_folder: Path) -> list[float]:
    """Return the losses of the `Epoch:` lines in `run_folder`/metrics.jsonl, in their order.

    A step that was done again after a resume counts once, with its last loss. A line that a kill
    cut short is told on stderr and left out. Raises FileNotFoundError without the file.
    """
    path = run_folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a training run writes it as it goes")
    records, left_out = read_json_lines(path, {"kind": str})
    for said in left_out:
        print(f"[Warning] left out: {said}", file=sys.stderr)
    losses: dict[tuple[float, float], float] = {}
    for record in records:
        if record["kind"] == "interval":
            epoch, step, loss = (_figure(record, key, path) for key in ("epoch", "step", "loss"))
            losses[epoch, step] = loss
    return list(losses.values())


def case_log(figures: RunFigures, *, e2e_time_s: int, device_type: str) -> str:
    """Return the `Key = value` lines of <case name>.log; e2e_time_s is the launcher's own time."""
    lines = {
        "Network": NETWORK,
        "RankSize": str(figures.num_cards),
        "BatchSize": str(figures.batch_size),
        "DeviceType": device_type,
        "CaseName": figures.case_name,
    }
    if figures.kind != "eval":
        lines["ActualFPS"] = f"{figures.images_per_s:.1f}"
        lines["TrainingTime"] = f"{figures.step_time_ms:.2f}"
    lines["TrainAccuracy"] = f"{figures.accuracy_top1:.3f}"
    lines["ActualLoss"] = figures.loss_text
    lines["E2ETrainingTime"] = str(e2e_time_s)
    if figures.compile_time_s is not None:
        lines["CompileTime"] = f"{figures.compile_time_s:.4f}"
    return "".join(f"{key} = {text}\n" for key, text in lines.items())


def final_result(figures: RunFigures, *, e2e_time_s: int) -> str:
    """Return the block that closes a launcher's stdout."""
    lines = ["------------------ Final result ------------------"]
    if figures.kind != "eval":
        lines.append(f"Final Performance images/sec : {figures.images_per_s:.1f}")
    lines.append(f"Final Train Accuracy : {figures.accuracy_top1:.3f}")
    lines.append(f"E2E Training Duration sec : {e2e_time_s}")
    return "\n".join(lines)


def write_report(run_folder: Path, output_folder: Path, *, e2e_time_s: int) -> str:
    """Write the case log and the loss list into `output_folder`; return the closing block.

    An evaluation's loss list is its one loss. Raises as read_figures and read_losses do, before
    anything is written.
    """
    figures = read_figures(run_folder)
    if figures.kind == "eval":
        losses = figures.loss_text + "\n"
    else:
        losses = "".join(f"{loss:.5f}\n" for loss in read_losses(run_folder))
    log = case_log(figures, e2e_time_s=e2e_time_s, device_type=platform.machine())
    output_folder.mkdir(parents=True, exist_ok=True)
    write_atomically(losses.encode(), output_folder / f"train_{figures.case_name}_loss.txt")
    write_atomically(log.encode(), output_folder / f"{figures.case_name}.log")
    return final_result(figures, e2e_time_s=e2e_time_s)


def _figure(
    entries: Mapping[str, object], key: str, path: Path, *, above_zero: bool = False
) -> float:
    number = entries.get(key)
    if number is None and key in entries and key.endswith("loss"):
        return math.nan  # how JSON says a loss that was not finite
    figure = float(checked(dict(entries), {key: float}, where=str(path))[key])
    if above_zero and figure <= 0:
        raise ValueError(f"{path}: {key} is {number}, a number above 0 is needed: run again")
    return figure
