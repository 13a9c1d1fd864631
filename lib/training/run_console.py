"""The console lines of a training run."""

from __future__ import annotations

from lib.data.build import input_lines
from lib.data.picture_files import LeftOut
from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.report import log
from lib.runtime import device as devices
from lib.runtime.console import Console
from lib.runtime.distributed import Processes
from lib.runtime.environment import num_cores
from lib.runtime.text import counted
from lib.training.build import TrainingSetup
from lib.training.input_wait import LoaderSetup, input_line, last_batches_line
from lib.training.optimising import optimising_line
from lib.training.start import TrainRequest
from lib.training.time_left import TimeLeft


class RunConsole(Console):
    """Lines and progress bars; only rank 0's are shown."""

    def __init__(self, setup: TrainingSetup, request: TrainRequest, processes: Processes):
        super().__init__(processes.ranks.is_main)
        self._setup, self._request, self._processes = setup, request, processes
        self.compile_time_s = 0.0
        train, data = setup.config.TRAIN, setup.data
        num_cores_a_card = max(1, num_cores() // processes.ranks.local_world_size)
        self._loader = LoaderSetup(data.loader.num_workers, num_cores_a_card, data.decoder)
        self._time_left = TimeLeft(data.position, train.END_EPOCH, train.COMPILE != "no")

    def introduce(self) -> None:
        """Say what the run computes with, and what may not be meant."""
        setup, data, ranks = self._setup, self._setup.data, self._processes.ranks
        config, train, objective = setup.config, setup.config.TRAIN, setup.objective
        num_parameters = sum(p.numel() for p in setup.network.parameters())
        lines = [
            f"network {config.MODEL.NAME}, {num_parameters:,} parameters, "
            f"{len(data.images.class_names)} classes; {setup.started}",
            f"device {devices.describe(self._processes.device)}, {ranks.world_size} card(s), "
            f"precision {setup.forward_pass.precision.describe()}, seed {setup.seed}",
            f"data {self._request.data_path}{data.images.form}: {len(data.images)} images to "
            f"train, {len(data.val_images)} to validate",
            f"decoder of training pictures: {data.decoder}",
            f"epochs {train.END_EPOCH}, steps {data.position.num_steps} an epoch, batch "
            f"{train.BATCH_SIZE_PER_GPU} a card, {train.OPTIMIZER}, learning rate {train.LR:g} x "
            f"{ranks.world_size} card(s), {setup.schedule.describe()}",
            last_batches_line(data.batches),
            optimising_line(config),
            *(f"evaluation, {line}" for line in input_lines(config)),
            "" if objective.teacher is None else objective.teacher.said,
        ]
        if setup.start.is_resume:
            lines.append(f"goes on at epoch {data.position.epoch} step {data.position.step}")
        left_out = LeftOut.whole([data.images.left_out, data.val_images.left_out])
        lines += [f"[Warning] {remark}" for remark in setup.remarks]
        for line in (*lines, *left_out.lines(self._request.data_path)):
            if line:
                self.say(line)

    def first_step(self, time_s: float) -> None:
        """Print one of the run's first step times, which hold the compilation."""
        self.compile_time_s += time_s
        self.say(f"step_time = {time_s:.4f}")
        self._say_time_left(self._time_left.after_first_step(time_s))

    def interval(self, epoch: int, stats: IntervalStats) -> None:
        """Print a log interval."""
        self.say(log.epoch_line(epoch, stats))
        self._say_time_left(self._time_left.after_interval(epoch, stats))
        self.say(input_line(stats, self._loader))

    def epoch_trained(self, epoch: int, stats: EpochStats) -> None:
        """Print the epoch's averages."""
        self.say(log.average_line(stats))
        self._say_time_left(self._time_left.after_epoch(epoch, stats))

    def epoch_evaluated(self, stats: EvalStats, last_weights_stats: EvalStats | None) -> None:
        """Print an evaluation, and that of the last weights where `stats` are averaged ones'."""
        if last_weights_stats is not None:
            self.say(log.unaveraged_line(last_weights_stats))
        self.say(log.test_line(stats))

    def stopped_early(self, epoch: int) -> None:
        """Say why this epoch was the last."""
        patience = self._setup.config.TRAIN.EARLY_STOP
        self.say(
            f"the run ends after epoch {epoch}: no better top-1 in {counted(patience, 'epoch')} "
            "(TRAIN.EARLY_STOP)"
        )

    def _say_time_left(self, line: str | None) -> None:
        if line and not self._request.is_performance:
            self.say(line)
