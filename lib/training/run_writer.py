"""The files of a run folder beside weights and report; only rank 0 writes them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from lib.data.build import input_choices
from lib.data.splitting import write_split
from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.report import log
from lib.report.environment import environment_facts
from lib.report.log import RunRecords
from lib.report.plots.curves import save_curves
from lib.runtime import device as devices
from lib.runtime import run_folder
from lib.runtime.checked import read_json
from lib.runtime.distributed import Processes
from lib.runtime.files import write_atomically, write_json
from lib.training.build import TrainingSetup
from lib.training.progress import Progress
from lib.training.run_console import RunConsole
from lib.training.start import TrainRequest


class RunWriter:
    """Writes config.yaml, classes.json, metrics.jsonl, TensorBoard, curves and result.json."""

    def __init__(
        self,
        setup: TrainingSetup,
        request: TrainRequest,
        processes: Processes,
        *,
        console: RunConsole,
    ):
        self._setup, self._request, self._processes = setup, request, processes
        self._console, self._folder = console, request.folder
        self._is_enabled = processes.ranks.is_main
        self._records: RunRecords | None = None
        self.lost_a_file = False

    @property
    def ledger_path(self) -> Path | None:
        """The list of bad pictures; None on the ranks that write nothing."""
        return self._folder / run_folder.BAD_IMAGES if self._is_enabled else None

    def open(self) -> None:
        """Take the folder over from an older run, or continue its records; introduce the run."""
        if not self._is_enabled:
            return
        data, config = self._setup.data, self._setup.config
        if not self._continues_here:
            self._move_older_run()
        run_folder.sign(self._folder, self._processes.ranks.launch_id)
        position = data.position
        self._records = RunRecords(
            self._folder, first_step=position.epoch * position.num_steps + position.step
        )
        for left_out in self._records.rewind(position.epoch, position.step):
            self._console.say(f"[Warning] left out: {left_out}")
        classes = {name: index for index, name in enumerate(data.images.class_names)}
        write_json(classes, self._folder / run_folder.CLASSES)
        write_atomically(config.dump().encode(), self._folder / run_folder.CONFIG)
        if not self._request.is_performance:
            self.write_or_warn(run_folder.ENVIRONMENT, self._write_environment)
        if config.DATASET.VAL_SHARE:
            write_split(data.images, data.val_images, self._folder)
        self._console.introduce()

    def close(self) -> None:
        """Close what is open."""
        if self._records is not None:
            self._records.close()

    def write_or_warn(self, name: str, write: Callable[[], None]) -> bool:
        """Write a file on rank 0; where the disk refuses, say so, go on, and return False."""
        if not self._is_enabled:
            return True
        try:
            write()
        except OSError as error:
            self.lost_a_file = True
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = ": free some space" if is_full else ""
            self._console.say(
                f"[Warning] {name} could not be written ({error.strerror or error}); what was "
                f"there before is untouched and the run goes on{advice}"
            )
            return False
        return True

    def record_interval(self, epoch: int, stats: IntervalStats) -> None:
        """Record a log interval."""
        step = epoch * self._setup.data.position.num_steps + stats.step
        self._record(log.interval_record(epoch, stats), step)

    def record_epoch(
        self,
        epoch: int,
        stats: EvalStats,
        progress: Progress,
        *,
        trained: EpochStats,
        last_weights_stats: EvalStats | None,
    ) -> None:
        """Record an epoch's training and evaluation, and draw the curves so far."""
        record = {
            "kind": "epoch",
            "epoch": epoch,
            "train_loss": round(trained.metrics.loss, 5),
            "train_accuracy_top1": progress.report["train_accuracy_top1"],
            "images_per_s": progress.report["images_per_s_last_epoch"],
            "val_loss": round(stats.metrics.loss, 5),
            "val_accuracy_top1": round(stats.metrics.accuracy_top1, 3),
            "val_accuracy_top5": round(stats.metrics.accuracy_top5, 3),
            "learning_rate": self._setup.schedule.learning_rate(epoch),
            "best_accuracy_top1": round(progress.best_accuracy, 3),
        }
        if last_weights_stats is not None:
            record |= log.unaveraged_record(last_weights_stats)
        self._record(record, (epoch + 1) * self._setup.data.position.num_steps)
        self.write_or_warn(run_folder.CURVES, self._draw_curves)

    def result(
        self, progress: Progress, *, num_epochs: int, num_bad_images: int, duration_s: float
    ) -> None:
        """Write result.json and say where things are."""
        setup, device = self._setup, self._processes.device
        is_performance = self._request.is_performance
        was_early = num_epochs < setup.config.TRAIN.END_EPOCH
        ended_by = "TRAIN.EARLY_STOP" if was_early else "TRAIN.END_EPOCH"
        report: dict[str, object] = {
            "kind": "performance" if is_performance else "train",
            "network": setup.config.MODEL.NAME,
            "config": self._request.name,
            "device": device.type,
            "cards": self._processes.ranks.world_size,
            "batch_size": setup.config.TRAIN.BATCH_SIZE_PER_GPU,
            "precision": setup.forward_pass.precision.name,
            "num_epochs": num_epochs,
            "ended_by": "--stop_step" if is_performance else ended_by,
            "num_steps": num_epochs * setup.data.position.num_steps,
            **progress.report,
            "num_train_images": len(setup.data.images),
            "num_bad_images": num_bad_images,
            "compile_time_s": round(self._console.compile_time_s, 4),
            "peak_memory_mib": devices.peak_memory_mib(device),
            "duration_s": round(duration_s, 1),
            **input_choices(setup.config),
        }
        path = self._folder / run_folder.RESULT
        self.write_or_warn(run_folder.RESULT, lambda: write_json(report, path))
        self._console.say(f"results, logs and weights are in {self._folder}")

    def repeat_result(self, num_epochs: int) -> bool:
        """Write result.json once more where this whole run is done already; tell whether it was."""
        path = self._folder / run_folder.RESULT
        if not (self._continues_here and path.is_file()):
            return False
        try:
            before = read_json(path, {"num_epochs": int})
        except ValueError:  # damaged: it is made anew
            return False
        if before["num_epochs"] != num_epochs:
            return False  # of an earlier, shorter run in this folder
        self.write_or_warn(run_folder.RESULT, lambda: write_json(before, path))
        self._console.say(
            f"nothing is left to train; results, logs and weights are in {self._folder}"
        )
        return True

    @property
    def _continues_here(self) -> bool:
        """True where the run goes on in the folder that its checkpoint lies in."""
        start = self._setup.start
        if start.path is None or not start.is_resume:
            return False
        return start.path.parent.resolve() == self._folder.resolve()

    def _move_older_run(self) -> None:
        start = self._setup.start
        files = {}
        if start.is_resume and start.path:
            paths = [start.path.with_name(n) for n in (run_folder.BEST, run_folder.PREDICTIONS)]
            files = {path.name: path.read_bytes() for path in paths if path.is_file()}
        moved_to = run_folder.set_aside_older_run(self._folder)
        if moved_to is not None:
            self._console.say(f"an older run was here; its files are now in {moved_to}")
        for name, content in files.items():  # the best model so far goes on with the run
            write_atomically(content, self._folder / name)

    def _write_environment(self) -> None:
        facts = environment_facts(
            self._processes.device,
            num_cards=self._processes.ranks.world_size,
            precision=self._setup.forward_pass.precision.describe(),
            command=self._request.command,
        )
        write_json(facts, self._folder / run_folder.ENVIRONMENT)

    def _record(self, record: Mapping[str, object], global_step: int) -> None:
        if self._records is not None:
            records = self._records
            self.write_or_warn(run_folder.METRICS, lambda: records.write(record, global_step))

    def _draw_curves(self) -> None:
        assert self._records is not None, "only rank 0 draws"
        records, _ = log.read_records(self._records.path)
        save_curves(
            records,
            self._folder / run_folder.CURVES,
            schedule=self._setup.schedule,
            num_classes=len(self._setup.data.images.class_names),
        )
