"""What a run says: console lines that others parse, metrics.jsonl, TensorBoard, result.json.

The console formats are a contract: whitespace-separated fields, tabs between groups, no timestamp.
Figures are rounded once, here, so that the console, metrics.jsonl and result.json agree.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.runtime.checked import COUNT, read_json_lines
from lib.runtime.console import _CLOSE_TIMEOUT_S
from lib.runtime.files import append_lines, finite, write_atomically
from lib.runtime.text import shorten

# The lines of metrics.jsonl. Null stands for a figure that is not finite.
_FIGURE = (float, None)
_INTERVAL = {
    "kind": "interval", "epoch": COUNT, "step": COUNT, "num_steps": COUNT[1:],
    "loss?": _FIGURE, "learning_rate?": _FIGURE,
}  # fmt: skip
_EPOCH = {
    "kind": "epoch", "epoch": COUNT, "train_loss?": _FIGURE, "train_accuracy_top1?": _FIGURE,
    "images_per_s?": _FIGURE, "val_loss?": _FIGURE, "val_accuracy_top1?": _FIGURE,
    "val_accuracy_top5?": _FIGURE, "learning_rate?": _FIGURE,
}  # fmt: skip


def epoch_line(epoch: int, stats: IntervalStats) -> str:
    """Return the `Epoch:` line of a log interval."""
    return "\t".join(
        (
            f"Epoch: [{epoch}][{stats.step}/{stats.num_steps}]",
            f"Time {stats.time_s:.3f}s",
            f"FPS {stats.images_per_s:.1f}",
            f"Data {stats.data_time_s:.3f}s",
            f"Loss {stats.metrics.loss:.5f}",
            f"Accuracy@1 {stats.metrics.accuracy_top1:.3f}",
            f"Accuracy@5 {stats.metrics.accuracy_top5:.3f}",
        )
    )


def average_line(stats: EpochStats) -> str:
    """Return the `Data Average :` line of an epoch; field 7 is images/s, field 11 the accuracy."""
    return "\t".join(
        (
            "Data Average :",
            f"Time_Avg {stats.time_s:.3f}s",
            f"Fps_Avg {stats.images_per_s:.1f}",
            f"Loss {stats.metrics.loss:.5f}",
            f"Accuracy@1_Avg {stats.metrics.accuracy_top1:.3f}",
        )
    )


def test_line(stats: EvalStats) -> str:
    """Return the `Test:` line; field 5 is the loss, field 11 the accuracy."""
    top1, top5 = stats.metrics.accuracy_top1, stats.metrics.accuracy_top5
    return "\t".join(
        (
            f"Test: Time {stats.time_s:.3f}",
            f"Loss {stats.metrics.loss:.4f}",
            f"Error@1 {100 - top1:.3f}",
            f"Error@5 {100 - top5:.3f}",
            f"Accuracy@1 {top1:.3f}",
            f"Accuracy@5 {top5:.3f}",
        )
    )


def not_finite_line(stats: EvalStats, paths: Sequence[str]) -> str:
    """Return the warning that images got outputs that are NaN or infinite, with their names."""
    names = ["/".join(Path(paths[place]).parts[-2:]) for place in stats.not_finite]
    named = f" ({shorten(names)})" if names else ""
    return (
        f"[Warning] the outputs for {stats.metrics.num_not_finite} of {stats.metrics.num_images} "
        f"images are NaN or infinite, so their loss is too; these images count as wrong{named}"
    )


def interval_record(epoch: int, stats: IntervalStats) -> dict[str, object]:
    """Return the metrics.jsonl line of a log interval."""
    return {
        "kind": "interval",
        "epoch": epoch,
        "step": stats.step,
        "num_steps": stats.num_steps,
        "num_images": stats.metrics.num_images,
        "time_s": round(stats.time_s, 3),
        "images_per_s": round(stats.images_per_s, 1),
        "data_time_s": round(stats.data_time_s, 3),
        "decode_time_s": round(stats.decode_time_s, 3),
        "loss": round(stats.metrics.loss, 5),
        "accuracy_top1": round(stats.metrics.accuracy_top1, 3),
        "accuracy_top5": round(stats.metrics.accuracy_top5, 3),
        "learning_rate": stats.learning_rate,
        "loss_scale": stats.loss_scale,
    }


def eval_record(stats: EvalStats) -> dict[str, object]:
    """Return the result.json entries of an evaluation."""
    return {
        "loss": round(stats.metrics.loss, 4),
        "accuracy_top1": round(stats.metrics.accuracy_top1, 3),
        "accuracy_top5": round(stats.metrics.accuracy_top5, 3),
        "num_correct_top1": stats.metrics.num_correct_top1,
        "num_correct_top5": stats.metrics.num_correct_top5,
        "num_images_used": stats.metrics.num_images,
        "num_images_expected": stats.num_expected,
        "num_images_not_finite": stats.metrics.num_not_finite,
    }


def unaveraged_line(stats: EvalStats) -> str:
    """Return the line on the last weights, which precedes the `Test:` line of the averaged ones.

    It has none of the words that others look for.
    """
    top1, top5 = stats.metrics.accuracy_top1, stats.metrics.accuracy_top5
    return f"without averaging: loss {stats.metrics.loss:.4f}, top-1 {top1:.3f}, top-5 {top5:.3f}"


def unaveraged_record(stats: EvalStats) -> dict[str, object]:
    """Return the entries on the last weights, of result.json and metrics.jsonl."""
    return {
        "loss_without_ema": round(stats.metrics.loss, 4),
        "accuracy_top1_without_ema": round(stats.metrics.accuracy_top1, 3),
        "accuracy_top5_without_ema": round(stats.metrics.accuracy_top5, 3),
    }


class RunRecords:
    """The files of a run folder that grow with it: metrics.jsonl and tensorboard/."""

    def __init__(self, folder: Path, *, first_step: int = 0):
        """Open them; TensorBoard forgets what a killed run wrote after `first_step`, global."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        # An endless queue: once its writing thread has died of a full disk, a bounded one blocks.
        self._board = SummaryWriter(
            logdir=str(folder / "tensorboard"),
            purge_step=first_step if first_step else None,
            max_queue=0,
        )

    def rewind(self, epoch: int, step: int) -> list[str]:
        """Drop lines that a killed run wrote after the checkpoint it is resumed from.

        Returns why others are dropped too: a kill, or a full disk, has cut them short.
        """
        if not self.path.exists():
            return []
        records, left_out = read_records(self.path)
        kept = [record for record in records if _is_before(record, epoch, step)]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(text.encode(), self.path)
        return left_out

    def write(self, record: Mapping[str, object], global_step: int) -> None:
        """Append one line, and its numbers to TensorBoard under the record's kind."""
        append_lines(f"{json.dumps(finite(record))}\n".encode(), self.path)
        for name, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{record['kind']}/{name}", value, global_step)

    def close(self) -> None:
        """Flush and close TensorBoard's file; do not wait for a writing thread that has died."""
        closing = threading.Thread(target=self._board.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)


def read_records(path: Path) -> tuple[list[dict[str, object]], list[str]]:
    """Return the lines of a metrics.jsonl, and of each that cannot be used why it is left out.

    Raises OSError, and ValueError where `path` is no file.
    """
    return read_json_lines(path, (_INTERVAL, _EPOCH))


def _is_before(record: Mapping[str, object], epoch: int, step: int) -> bool:
    if record["kind"] == "epoch":
        return record["epoch"] < epoch  # type: ignore[operator]
    return (record["epoch"], record["step"]) < (epoch, step)  # type: ignore[operator]
