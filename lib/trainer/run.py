"""The epochs of a training run: train, evaluate, keep the best, save, stop when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from lib import checkpoint, log, run_folder
from lib import device as devices
from lib.assembly import eval_view
from lib.cli import PartlyFailed, Stopped
from lib.data import BadImageLedger, EvalBatches, lost_classes_remark
from lib.distributed import GIVE_UP, Processes, StopRequest
from lib.engine import BadImages, StepRange, TrainHooks, evaluate, train_one_epoch
from lib.log import EpochStats, EvalStats
from lib.metrics import Metrics
from lib.trainer.parts import build_parts, restored_progress
from lib.trainer.reporter import Reporter
from lib.trainer.starting import TrainRequest
from lib.trainer.state import training_state

_NUM_TIMED_STEPS = 2  # the `step_time` lines, whose sum is the compile time


def train(config: CfgNode, request: TrainRequest, processes: Processes) -> None:
    """Train to the configuration's last epoch; leave weights and result.json in the run folder.

    Raises ValueError and FileNotFoundError for what the user can mend, Stopped after a signal (the
    state is saved by then), and PartlyFailed where the last weights could not be written.
    """
    began_s = time.monotonic()
    run = _Run(config, request, processes)
    with ExitStack() as stack:
        if processes.ranks.is_main:
            stack.enter_context(run_folder.lock(request.folder))
        processes.barrier()  # all ranks have read what they start from before it is moved
        stack.callback(run.close)
        run.open(stack.enter_context(StopRequest(processes, time.monotonic)))
        if request.is_performance:
            run.measure()
        else:
            run.train_and_evaluate()
        run.finish(began_s=began_s)


class _Run:
    def __init__(self, config: CfgNode, request: TrainRequest, processes: Processes):
        self._request, self._processes = request, processes
        self._parts = build_parts(config, request, processes)
        self._config = config = self._parts.config
        self._progress = restored_progress(self._parts.start)
        self._reporter = Reporter(config, request, processes, self._parts)
        self._num_run_steps = 0  # of this process, over its epochs
        self._num_epochs = config.TRAIN.END_EPOCH  # fewer after an early stop
        self._after_step: Callable[[], None] = lambda: None
        self._num_bad_said: dict[str, int] = {}
        start = self._parts.start
        if start.is_resume and start.path and not start.path.with_name(run_folder.BEST).is_file():
            self._progress.best_accuracy = -1.0  # its file is lost: the next best is kept

    def open(self, stop: StopRequest) -> None:
        """Take over the run folder."""
        self._stop = stop
        self._reporter.open()
        data = self._config.DATASET
        ledger = partial(
            BadImageLedger,
            self._reporter.ledger_path,
            policy=data.BAD_IMAGES,
            max_share=data.BAD_IMAGES_MAX_SHARE,
        )
        self._ledger = ledger(num_images=len(self._parts.images))
        self._val_ledger = ledger(num_images=len(self._parts.val_images))

    def close(self) -> None:
        self._reporter.close()

    def measure(self) -> None:
        """Run the steps of a performance run: no evaluation, no weights."""
        wanted = self._request.stop_step or 0
        for epoch in range(self._parts.position.epoch, self._config.TRAIN.END_EPOCH):
            stats = self._train_epoch(epoch, num_steps_left=wanted - self._num_run_steps)
            self._progress.report.update(
                accuracy_top1=round(stats.metrics.accuracy_top1, 3),
                accuracy_top5=round(stats.metrics.accuracy_top5, 3),
                num_steps=self._num_run_steps,
            )
            if self._num_run_steps >= wanted:
                return

    def train_and_evaluate(self) -> None:
        """Run the epochs that are left, up to an early stop.

        Where weights are averaged, theirs are the figures that count: of the `Test:` line, of the
        best weights and of the early stop. The last weights' own are given beside.
        """
        parts, beside = self._parts, None
        for epoch in range(parts.position.epoch, self._config.TRAIN.END_EPOCH):
            if self._has_stalled(epoch):
                self._num_epochs = epoch
                return
            trained = self._train_epoch(epoch)
            if parts.average is not None:
                beside = self._evaluate_epoch(epoch, trained, parts.network)
            evaluated = self._evaluate_epoch(epoch, trained, parts.judged_network)
            self._note_best(epoch, evaluated)
            self._progress.sums = Metrics()
            self._reporter.epoch_evaluated(
                self._progress,
                evaluated,
                beside=beside,
                epoch=epoch,
                train_loss=trained.metrics.loss,
                global_step=(epoch + 1) * self._parts.position.num_steps,
            )
            self._save(epoch + 1, 0, Metrics())

    def finish(self, *, began_s: float) -> None:
        """Write what a whole run leaves."""
        if not self._request.is_performance:
            weights = checkpoint.to_cpu(self._parts.judged_network.state_dict())
            self._keep_weights(run_folder.FINAL, weights)
        was_done = self._parts.position.epoch == self._num_epochs
        if not (was_done and self._reporter.repeat_result(self._num_epochs)):
            self._reporter.result(
                self._progress,
                num_epochs=self._num_epochs,
                num_bad_images=self._ledger.num_bad + self._val_ledger.num_bad,
                duration_s=time.monotonic() - began_s,
            )
        if not self._request.is_performance:
            self._reporter.report()
        if self._reporter.lost_a_file:
            raise PartlyFailed("some files could not be written; see the warnings above")

    def _has_stalled(self, epoch: int) -> bool:
        """Tell whether the run ends before this epoch, TRAIN.EARLY_STOP having passed in vain."""
        patience, position = self._config.TRAIN.EARLY_STOP, self._parts.position
        is_begun = epoch == position.epoch and position.step > 0
        if not patience or is_begun:
            return False
        # Rank 0 decides: only there a best file that could not be written does not count.
        num_in_vain = self._processes.gather(self._progress.num_epochs_since_best(epoch))[0]
        if num_in_vain >= patience:
            self._reporter.stopped_early(epoch - 1)
        return num_in_vain >= patience

    def _train_epoch(self, epoch: int, num_steps_left: int | None = None) -> EpochStats:
        parts, position = self._parts, self._parts.position
        first = position.step if epoch == position.epoch else 0
        end = position.num_steps
        if num_steps_left is not None:
            end = min(end, first + num_steps_left)
        parts.batches.epoch, parts.batches.start_step = epoch, first
        steps = StepRange(
            first,
            end,
            num_steps=position.num_steps,
            print_freq=self._config.PRINT_FREQ,
            num_warmup=max(0, _NUM_TIMED_STEPS - self._num_run_steps),
            epoch=epoch,
        )
        self._reporter.console.start_bar(f"epoch {epoch}", end, first)
        with ExitStack() as stack:
            self._start_profiler(stack, num_steps=end - first)
            stats = train_one_epoch(
                parts.model,
                parts.loader,
                optimizer=parts.optimizer,
                computing=parts.computing,
                steps=steps,
                hooks=self._hooks(epoch),
                sums_before=self._progress.sums if first else Metrics(),
                objective=parts.objective,
            )
        self._reporter.console.end_bar()
        self._exchange_bad_images(self._ledger, "train")  # raises on all ranks after a GIVE_UP
        if end == first:
            stats = self._progress.with_saved_speed(stats)
        self._progress.note_epoch(stats)
        if stats.stop_signal:
            if not self._request.is_performance:
                self._save(epoch, stats.num_steps_done, stats.metrics)
            raise self._stopped(epoch, stats.num_steps_done, stats.stop_signal)
        self._reporter.epoch_trained(epoch, stats)
        return stats

    def _hooks(self, epoch: int) -> TrainHooks:
        num_steps = self._parts.position.num_steps
        return TrainHooks(
            learning_rate=lambda step: self._parts.schedule.learning_rate(epoch + step / num_steps),
            on_first_step=self._reporter.first_step,
            on_interval=lambda stats: self._reporter.interval(
                epoch, stats, epoch * num_steps + stats.step
            ),
            on_bad_images=partial(self._note_bad_images, self._ledger),
            after_step=partial(self._end_step, epoch),
        )

    def _end_step(self, epoch: int, num_done: int, sums: Callable[[], Metrics]) -> int:
        """Save where it is due; return the signal that ends the run, or 0."""
        self._num_run_steps += 1
        if self._parts.average is not None:
            self._parts.average.update()
        self._reporter.console.advance_bar()
        self._after_step()
        every = self._config.TRAIN.SAVE_EVERY_STEPS
        is_due = every and num_done % every == 0 and num_done < self._parts.position.num_steps
        if is_due and not self._request.is_performance:
            self._save(epoch, num_done, sums())
        return self._stop.poll()

    def _evaluate_epoch(self, epoch: int, trained: EpochStats, network: nn.Module) -> EvalStats:
        parts, num_images = self._parts, len(self._parts.val_images)
        batches: EvalBatches = parts.val_loader.batch_sampler  # type: ignore[assignment]
        self._processes.agree_on_buffers(network)

        def on_batch(index: int, bad: BadImages) -> None:
            self._note_bad_images(self._val_ledger, bad)
            self._reporter.console.advance_bar()
            # Only for batches that every rank has: polling is a collective operation.
            if index < batches.num_common_steps and (signal := self._stop.poll()):
                if signal == GIVE_UP:
                    self._exchange_bad_images(self._val_ledger, "validate")
                self._save(epoch, parts.position.num_steps, trained.metrics)
                raise self._stopped(epoch, parts.position.num_steps, signal)

        self._reporter.console.start_bar(f"epoch {epoch} validation", len(batches))
        stats = evaluate(
            eval_view(self._config, network),
            parts.val_loader,
            num_images=num_images,
            computing=parts.computing,
            on_batch=on_batch,
            with_predictions=True,
        )
        self._reporter.console.end_bar()
        self._exchange_bad_images(self._val_ledger, "validate")
        if stats.metrics.num_not_finite:
            self._refuse_lost_weights(epoch)
            said = log.not_finite_line(stats, parts.val_images.paths)
            self._reporter.console.say(f"{said}; such weights are no best ones")
        return stats

    def _refuse_lost_weights(self, epoch: int) -> None:
        """Raise ValueError where weights are NaN or infinite, before they replace a checkpoint.

        Finite ones may still give outputs that are not: BatchNorm's averages need some steps.
        """
        if not all(torch.isfinite(p).all() for p in self._parts.network.parameters()):
            raise ValueError(
                f"weights are NaN or infinite after epoch {epoch}; nothing is saved of this epoch: "
                "lower TRAIN.LR"
            )

    def _note_bad_images(self, ledger: BadImageLedger, bad: BadImages) -> None:
        """Record them; what ends the run on one of several ranks has to end it on all."""
        try:
            ledger.record(bad)
        except ValueError:
            if self._processes.ranks.world_size == 1:
                raise
            self._stop.give_up()

    def _exchange_bad_images(self, ledger: BadImageLedger, use: str) -> None:
        """Let every rank know what all have met, and say what came new."""
        num_known = self._num_bad_said.get(use, 0)
        ledger.merge(self._processes.gather(ledger.bad_images))
        if ledger.num_bad > num_known:
            self._num_bad_said[use] = ledger.num_bad
            self._reporter.console.say(
                f"[Warning] {ledger.num_bad} images to {use} cannot be read and are left out; they "
                f"are listed in {self._reporter.ledger_path}"
            )
            images = self._parts.images if use == "train" else self._parts.val_images
            if remark := lost_classes_remark(images, ledger.bad_images):
                self._reporter.console.say(remark)

    def _stopped(self, epoch: int, step: int, signal: int) -> Stopped:
        if self._request.is_performance:
            return Stopped(signal)
        return Stopped(
            signal,
            f"the state at epoch {epoch} step {step} is saved in {self._request.folder}; go on "
            "with the same command and --auto_resume",
        )

    def _note_best(self, epoch: int, stats: EvalStats) -> None:
        """Keep the weights where this evaluation is the best of the whole run, resumes included.

        Weights whose outputs are not all finite stand in for the best until there are sound ones.
        """
        accuracy = stats.metrics.accuracy_top1
        is_sound = stats.metrics.num_not_finite == 0
        if self._progress.best_accuracy >= (accuracy if is_sound else 0.0):
            return
        weights = checkpoint.to_cpu(self._parts.judged_network.state_dict())
        if self._keep_weights(run_folder.BEST, weights):  # else the next good one is tried again
            self._progress.best_accuracy = accuracy if is_sound else -1.0
            self._progress.report.update(best_accuracy_top1=round(accuracy, 3), best_epoch=epoch)
            self._reporter.keep_predictions(stats.predictions, epoch)

    def _keep_weights(self, name: str, content: object) -> bool:
        path = self._request.folder / name
        return self._reporter.keep(name, lambda: checkpoint.save_atomically(content, path))

    def _save(self, epoch: int, step: int, sums: Metrics) -> None:
        """Write checkpoint.pth.tar; a collective operation, ended when the file is whole."""
        parts, position = self._parts, self._parts.position
        rng = self._processes.gather(checkpoint.rng_states(self._processes.device))
        if self._processes.ranks.is_main:
            state = training_state(
                parts,
                self._progress,
                self._config,
                position=replace(position, epoch=epoch, step=step),
                sums=sums,
                rng=rng,
            )
            self._keep_weights(run_folder.CHECKPOINT, checkpoint.to_cpu(state))
        self._processes.barrier()  # no rank may leave, and be reaped, while the file is written

    def _start_profiler(self, stack: ExitStack, *, num_steps: int) -> None:
        """Profile the run's first epoch that has steps left, where that is asked for."""
        first_step = self._request.profile_start_step
        if first_step is None or self._num_run_steps or not self._processes.ranks.is_main:
            return
        num_before = first_step + devices.PROFILER_WARMUP_STEPS
        if 0 < num_steps <= num_before:
            self._reporter.console.say(
                f"[Warning] nothing is profiled: PROFILE_START_STEP={first_step} and its warm-up "
                f"take {num_before} steps, and the run's first epoch has {num_steps}; give less"
            )
        if num_steps <= num_before:
            return
        folder = self._request.folder / run_folder.PROFILE
        profiler = devices.profiler(self._processes.device, folder, first_step=first_step)
        self._after_step = stack.enter_context(profiler).step  # type: ignore[attr-defined]
        stack.callback(self._stop_profiling)

    def _stop_profiling(self) -> None:
        self._after_step = lambda: None
