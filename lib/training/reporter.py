"""What a training run says and writes beside its weights. Only rank 0's says anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from yacs.config import CfgNode

from lib.data.bad_images import in_one_line
from lib.data.build import input_choices, input_lines
from lib.data.picture_files import LeftOut
from lib.metrics.per_class import write_per_class
from lib.metrics.predictions import Predictions
from lib.metrics.predictions_file import save_predictions
from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.report import log
from lib.report.environment import environment_facts
from lib.report.log import RunRecords
from lib.report.mistakes import Pictures
from lib.report.page import write_report
from lib.report.plots.confusion import save_confusion
from lib.report.plots.curves import save_curves
from lib.report.run_files import RunFiles, read_run
from lib.runtime import device as devices
from lib.runtime import run_folder
from lib.runtime.checked import read_json
from lib.runtime.console import Console
from lib.runtime.distributed import Processes
from lib.runtime.environment import num_cores
from lib.runtime.files import write_atomically
from lib.runtime.text import counted
from lib.training.build import Progress, TrainingSetup
from lib.training.input_wait import LoaderSetup, input_line, last_batches_line
from lib.training.optimising import optimising_line
from lib.training.start import TrainRequest
from lib.training.time_left import TimeLeft


class Reporter:
    """Console lines, metrics.jsonl, TensorBoard, curves and result.json of one run."""

    def __init__(
        self, config: CfgNode, request: TrainRequest, processes: Processes, parts: TrainingSetup
    ) -> None:
        self._config, self._request = config, request
        self._processes, self._parts = processes, parts
        self._folder = request.folder
        self._enabled = processes.ranks.is_main
        self._records: RunRecords | None = None
        self._compile_time_s = 0.0
        num_cores_a_card = max(1, num_cores() // processes.ranks.local_world_size)
        self._loading = LoaderSetup(parts.loader.num_workers, num_cores_a_card, parts.decoder)
        self.console = Console(self._enabled)
        self.lost_a_file = False
        train = config.TRAIN
        self._expecting = TimeLeft(parts.position, train.END_EPOCH, train.COMPILE != "no")

    @property
    def continues_here(self) -> bool:
        """True where the run goes on in the folder that its checkpoint lies in."""
        start = self._parts.start
        if start.path is None or not start.is_resume:
            return False
        return start.path.parent.resolve() == self._folder.resolve()

    @property
    def ledger_path(self) -> Path | None:
        """Where bad files are listed; None on the ranks that write nothing."""
        return self._folder / run_folder.BAD_IMAGES if self._enabled else None

    def open(self) -> None:
        """Take the folder over from an older run, or continue its records; introduce the run."""
        if not self._enabled:
            return
        position = self._parts.position
        if not self.continues_here:
            self._set_aside_older_run()
        run_folder.sign(self._folder, self._processes.ranks.launch_id)
        first_step = position.epoch * position.num_steps + position.step
        self._records = RunRecords(self._folder, first_step=first_step)
        for left_out in self._records.rewind(position.epoch, position.step):
            self.console.say(f"[Warning] left out: {left_out}")
        names = self._parts.images.class_names
        log.write_json({n: i for i, n in enumerate(names)}, self._folder / run_folder.CLASSES)
        write_atomically(self._config.dump().encode(), self._folder / run_folder.CONFIG)
        if not self._request.is_performance:
            self.keep(run_folder.ENVIRONMENT, self._note_environment)
        if self._config.DATASET.VAL_SHARE:
            self._write_split()
        self._introduce()

    def close(self) -> None:
        """Close what is open."""
        self.console.end_bar()
        if self._records is not None:
            self._records.close()

    def keep(self, what: str, write: Callable[[], None]) -> bool:
        """Write a file on rank 0; where the disk refuses, say so, go on, and return False."""
        if not self._enabled:
            return True
        try:
            write()
        except OSError as error:
            self.lost_a_file = True
            self.console.say(
                f"[Warning] {what} could not be written ({error.strerror or error}); what was "
                "there before is untouched and the run goes on: free some space"
            )
            return False
        return True

    def first_step(self, time_s: float) -> None:
        """Print one of the run's first step times, which hold the compilation."""
        self._compile_time_s += time_s
        self.console.say(f"step_time = {time_s:.4f}")
        self._say_expected(self._expecting.after_first_step(time_s))

    def interval(self, epoch: int, stats: IntervalStats, global_step: int) -> None:
        """Print and record a log interval."""
        self.console.say(log.epoch_line(epoch, stats))
        self._say_expected(self._expecting.after_interval(epoch, stats))
        self.console.say(input_line(stats, self._loading))
        self._record(log.interval_record(epoch, stats), global_step)

    def _say_expected(self, line: str | None) -> None:
        if line and not self._request.is_performance:
            self.console.say(line)

    def epoch_trained(self, epoch: int, stats: EpochStats) -> None:
        """Print the epoch's averages."""
        self.console.say(log.average_line(stats))
        self._say_expected(self._expecting.after_epoch(epoch, stats))

    def epoch_evaluated(
        self,
        progress: Progress,
        stats: EvalStats,
        *,
        beside: EvalStats | None,
        epoch: int,
        train_loss: float,
        global_step: int,
    ) -> None:
        """Print and record an evaluation, and draw the curves so far.

        Where weights are averaged `stats` are theirs, and `beside` those of the last weights.
        """
        if beside is not None:
            self.console.say(log.unaveraged_line(beside))
            progress.report.update(log.unaveraged_record(beside))
        self.console.say(log.test_line(stats))
        progress.report.update(log.eval_record(stats))
        record = {
            "kind": "epoch",
            "epoch": epoch,
            "train_loss": round(train_loss, 5),
            "train_accuracy_top1": progress.report["train_accuracy_top1"],
            "images_per_s": progress.report["images_per_s_last_epoch"],
            "val_loss": round(stats.metrics.loss, 5),
            "val_accuracy_top1": round(stats.metrics.accuracy_top1, 3),
            "val_accuracy_top5": round(stats.metrics.accuracy_top5, 3),
            "learning_rate": self._parts.schedule.learning_rate(epoch),
            "best_accuracy_top1": round(progress.best_accuracy, 3),
            **({} if beside is None else log.unaveraged_record(beside)),
        }
        self._record(record, global_step)
        self.keep(run_folder.CURVES, self._draw_curves)

    def stopped_early(self, epoch: int) -> None:
        """Say why this epoch was the last."""
        patience = self._config.TRAIN.EARLY_STOP
        self.console.say(
            f"the run ends after epoch {epoch}: no better top-1 in {counted(patience, 'epoch')} "
            "(TRAIN.EARLY_STOP)"
        )

    def result(
        self, progress: Progress, *, num_epochs: int, num_bad_images: int, duration_s: float
    ) -> None:
        """Write result.json and say where things are."""
        report: dict[str, object] = {
            "kind": "performance" if self._request.is_performance else "train",
            "network": self._config.MODEL.NAME,
            "config": self._request.name,
            "device": self._processes.device.type,
            "cards": self._processes.ranks.world_size,
            "batch_size": self._config.TRAIN.BATCH_SIZE_PER_GPU,
            "precision": self._parts.forward_pass.precision.name,
            "num_epochs": num_epochs,
            "ended_by": self._ended_by(num_epochs),
            "num_steps": num_epochs * self._parts.position.num_steps,
            **progress.report,
            "num_train_images": len(self._parts.images),
            "num_bad_images": num_bad_images,
            "compile_time_s": round(self._compile_time_s, 4),
            "peak_memory_mib": devices.peak_memory_mib(self._processes.device),
            "duration_s": round(duration_s, 1),
            **input_choices(self._config),
        }
        path = self._folder / run_folder.RESULT
        self.keep(run_folder.RESULT, lambda: log.write_json(report, path))
        self.console.say(f"results, logs and weights are in {self._folder}")

    def _ended_by(self, num_epochs: int) -> str:
        if self._request.is_performance:
            return "--stop_step"
        was_early = num_epochs < self._config.TRAIN.END_EPOCH
        return "TRAIN.EARLY_STOP" if was_early else "TRAIN.END_EPOCH"

    def save_predictions(self, predictions: Predictions | None, epoch: int) -> None:
        """Keep what the best weights so far predicted, for the report."""
        if predictions is None:  # no image could be read
            return
        path = self._folder / run_folder.PREDICTIONS
        images, data = self._parts.val_images, self._request.data_path
        self.keep(
            run_folder.PREDICTIONS,
            lambda: save_predictions(predictions, path, images=images, data_path=data, epoch=epoch),
        )

    def report(self) -> None:
        """Make report.html of what the run folder holds now; it may fail, the run has not."""
        if not self._enabled:
            return
        data = self._config.DATASET
        pictures = Pictures(self._parts.val_images, self._request.data_path, data.ORIENTATION)
        try:
            run = read_run(self._folder)
            self._write_classes(run)
            path = write_report(run, pictures)
        # All that it is made of is in the run folder, and can be made a page again.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.console.say(
                f"[Warning] {run_folder.REPORT} could not be made ({reason}); nothing else is "
                f"missing: python tools/report.py {self._folder} makes it"
            )
        else:
            self.console.say(f"the report is {path}")

    def _write_classes(self, run: RunFiles) -> None:
        """Write per_class.csv and confusion.png of the best weights."""
        names = run.class_names
        if run.kept is None:
            return
        confusion = run.kept.predictions.confusion(len(names))
        write_per_class(confusion, names, self._folder / run_folder.PER_CLASS)
        self._warn(save_confusion(confusion, names, self._folder / run_folder.CONFUSION))

    def _warn(self, remark: str) -> None:
        if remark:
            self.console.say(f"[Warning] {remark}")

    def repeat_result(self, num_epochs: int) -> bool:
        """Write result.json once more where this whole run is done already; tell whether it was."""
        path = self._folder / run_folder.RESULT
        if not (self.continues_here and path.is_file()):
            return False
        try:
            before = read_json(path, {"num_epochs": int})
        except ValueError:  # damaged: it is made anew
            return False
        if before["num_epochs"] != num_epochs:
            return False  # of an earlier, shorter run in this folder
        self.keep(run_folder.RESULT, lambda: log.write_json(before, path))
        self.console.say(
            f"nothing is left to train; results, logs and weights are in {self._folder}"
        )
        return True

    def _write_split(self) -> None:
        parts = {"train": self._parts.images, "val": self._parts.val_images}
        lines = [
            f"{p}\t{in_one_line(path)}" for p, images in parts.items() for path in images.paths
        ]
        text = "\n".join(["part\tfile", *lines, ""])
        write_atomically(text.encode(errors="surrogateescape"), self._folder / run_folder.SPLIT)

    def _set_aside_older_run(self) -> None:
        start = self._parts.start
        files = {}
        if start.is_resume and start.path:
            beside = {n: start.path.with_name(n) for n in (run_folder.BEST, run_folder.PREDICTIONS)}
            files = {name: path.read_bytes() for name, path in beside.items() if path.is_file()}
        aside = run_folder.set_aside_older_run(self._folder)
        if aside is not None:
            self.console.say(f"an older run was here; its files are now in {aside}")
        for name, content in files.items():  # the best model so far goes on with the run
            write_atomically(content, self._folder / name)

    def _introduce(self) -> None:
        parts, ranks, train = self._parts, self._processes.ranks, self._config.TRAIN
        num_parameters = sum(p.numel() for p in parts.network.parameters())
        for line in (
            f"network {self._config.MODEL.NAME}, {num_parameters:,} parameters, "
            f"{len(parts.images.class_names)} classes; {parts.started}",
            f"device {devices.describe(self._processes.device)}, {ranks.world_size} card(s), "
            f"precision {parts.forward_pass.precision.describe()}, seed {parts.seed}",
            f"data {self._request.data_path}{parts.images.form}: {len(parts.images)} images to "
            f"train, {len(parts.val_images)} to validate",
            f"decoder of training pictures: {parts.decoder}",
            f"epochs {train.END_EPOCH}, steps {parts.position.num_steps} an epoch, batch "
            f"{train.BATCH_SIZE_PER_GPU} a card, {train.OPTIMIZER}, learning rate {train.LR:g} x "
            f"{ranks.world_size} card(s), {parts.schedule.describe()}",
            last_batches_line(parts.batches),
            optimising_line(self._config),
            *(f"evaluation, {line}" for line in input_lines(self._config)),
        ):
            if line:
                self.console.say(line)
        if parts.objective.teacher is not None:
            self.console.say(parts.objective.teacher.said)
        if parts.start.is_resume:
            self.console.say(f"goes on at epoch {parts.position.epoch} step {parts.position.step}")
        for remark in parts.remarks:
            self.console.say(f"[Warning] {remark}")
        left_out = LeftOut.whole([parts.images.left_out, parts.val_images.left_out])
        for line in left_out.lines(self._request.data_path):
            self.console.say(line)

    def _note_environment(self) -> None:
        facts = environment_facts(
            self._processes.device,
            num_cards=self._processes.ranks.world_size,
            precision=self._parts.forward_pass.precision.describe(),
            command=self._request.command,
        )
        log.write_json(facts, self._folder / run_folder.ENVIRONMENT)

    def _record(self, record: Mapping[str, object], global_step: int) -> None:
        if self._records is not None:
            records = self._records
            self.keep(run_folder.METRICS, lambda: records.write(record, global_step))

    def _draw_curves(self) -> None:
        assert self._records is not None, "only rank 0 draws"
        records, _ = log.read_records(self._records.path)
        save_curves(
            records,
            self._folder / run_folder.CURVES,
            schedule=self._parts.schedule,
            num_classes=len(self._parts.images.class_names),
        )
