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

from lib.data.bad_images import BadImages
from lib.data.samplers import EvalBatches
from lib.data.watching import LoadingFailed
from lib.evaluation.loop import evaluate
from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, EvalStats
from lib.models.build import wrap_for_eval
from lib.models.weights.torch_file import save_atomically
from lib.report import log
from lib.runtime import run_folder
from lib.runtime.cli import PartlyFailed, Stopped
from lib.runtime.distributed import GIVE_UP, Processes, StopRequest, WaitInterrupted
from lib.training import checkpoint
from lib.training.build import build_training, restored_progress
from lib.training.loop import train_one_epoch
from lib.training.profiling import Profiling
from lib.training.progress import bare_weights, training_state
from lib.training.reporter import Reporter
from lib.training.shared_ledger import shared_ledger
from lib.training.start import TrainRequest
from lib.training.steps import StepRange, TrainHooks

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
        stop = StopRequest(processes, time.monotonic, saves=not request.is_performance)
        run.open(stack.enter_context(stop))
        try:
            if request.is_performance:
                run.measure()
            else:
                run.train_and_evaluate()
        except BaseException:
            run.end_loading()
            raise
        run.finish(began_s=began_s)


class _Run:
    def __init__(self, config: CfgNode, request: TrainRequest, processes: Processes):
        self._request, self._processes = request, processes
        self._parts = build_training(config, request, processes)
        self._config = config = self._parts.config
        self._progress = restored_progress(self._parts.start)
        self._reporter = Reporter(config, request, processes, self._parts)
        self._num_run_steps = 0  # of this process, over its epochs
        self._num_epochs = config.TRAIN.END_EPOCH  # fewer after an early stop
        self._profiling = Profiling(request, processes, self._reporter.console)
        start = self._parts.start
        if start.is_resume and start.path and not start.path.with_name(run_folder.BEST).is_file():
            self._progress.best_accuracy = -1.0  # its file is lost: the next best is kept

    def open(self, stop: StopRequest) -> None:
        """Take over the run folder."""
        self._stop = stop
        self._reporter.open()
        build = partial(
            shared_ledger,
            self._config.DATASET,
            self._reporter.ledger_path,
            processes=self._processes,
            stop=stop,
            console=self._reporter.console,
        )
        self._ledger = build(self._parts.images, use="train")
        self._val_ledger = build(self._parts.val_images, use="validate")

    def close(self) -> None:
        self._reporter.close()

    def end_loading(self) -> None:
        for loader in (self._parts.loader, self._parts.val_loader):
            loader.end_workers()

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
            evaluated = self._evaluate_epoch(epoch, trained, parts.eval_network)
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
            self._keep_weights(run_folder.FINAL, bare_weights(self._parts, self._config))
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
        parts, steps = self._parts, self._steps_of(epoch, num_steps_left)
        parts.batches.epoch, parts.batches.start_step = epoch, steps.first
        sums_before = self._progress.sums if steps.first else Metrics()
        self._done = steps.first, lambda: sums_before
        self._reporter.console.start_bar(f"epoch {epoch}", steps.end, steps.first)
        try:
            with ExitStack() as stack:
                self._profiling.begin(stack, num_steps=steps.end - steps.first)
                stats = train_one_epoch(
                    parts.model,
                    self._stop.interruptible(parts.loader),
                    optimizer=parts.optimizer,
                    forward_pass=parts.forward_pass,
                    steps=steps,
                    hooks=self._hooks(epoch),
                    metrics_so_far=sums_before,
                    objective=parts.objective,
                    num_micro_batches=self._config.TRAIN.ACCUM_STEPS,
                )
        except (LoadingFailed, WaitInterrupted) as ending:
            raise self._ended_between_steps(ending, epoch, *self._done) from None
        self._reporter.console.end_bar()
        self._ledger.exchange()  # raises on all ranks after a GIVE_UP
        if steps.end == steps.first:
            stats = self._progress.with_saved_speed(stats)
        self._progress.note_epoch(stats)
        if stats.stop_signal:
            remark = self._saved(epoch, stats.num_steps_done, stats.metrics)
            raise Stopped(stats.stop_signal, remark)
        self._reporter.epoch_trained(epoch, stats)
        return stats

    def _steps_of(self, epoch: int, num_steps_left: int | None) -> StepRange:
        position = self._parts.position
        first = position.step if epoch == position.epoch else 0
        end = position.num_steps
        if num_steps_left is not None:
            end = min(end, first + num_steps_left)
        return StepRange(
            first,
            end,
            num_steps=position.num_steps,
            print_freq=self._config.PRINT_FREQ,
            num_warmup=max(0, _NUM_TIMED_STEPS - self._num_run_steps),
            epoch=epoch,
        )

    def _ended_between_steps(
        self,
        ending: LoadingFailed | WaitInterrupted,
        epoch: int,
        num_done: int,
        sums: Callable[[], Metrics],
    ) -> Exception:
        """Save what one process alone can save; return what the run ends by."""
        remark = ""
        if self._processes.ranks.world_size == 1:
            remark = self._saved(epoch, num_done, sums())
        if isinstance(ending, WaitInterrupted):
            return Stopped(ending.signal, remark)
        return LoadingFailed(f"{ending}; {remark}" if remark else str(ending))

    def _hooks(self, epoch: int) -> TrainHooks:
        num_steps = self._parts.position.num_steps
        return TrainHooks(
            learning_rate=lambda step: self._parts.schedule.learning_rate(epoch + step / num_steps),
            on_first_step=self._reporter.first_step,
            on_interval=lambda stats: self._reporter.interval(
                epoch, stats, epoch * num_steps + stats.step
            ),
            on_bad_images=self._ledger.note,
            after_step=partial(self._end_step, epoch),
        )

    def _end_step(self, epoch: int, num_done: int, sums: Callable[[], Metrics]) -> int:
        """Save where it is due; return the signal that ends the run, or 0."""
        self._num_run_steps += 1
        self._done = num_done, sums
        if self._parts.average is not None:
            self._parts.average.update()
        self._reporter.console.advance_bar()
        self._profiling.step()
        every = self._config.TRAIN.SAVE_EVERY_STEPS
        is_due = every and num_done % every == 0 and num_done < self._parts.position.num_steps
        if is_due and not self._request.is_performance:
            self._save(epoch, num_done, sums())
        return self._stop.poll()

    def _evaluate_epoch(self, epoch: int, trained: EpochStats, network: nn.Module) -> EvalStats:
        parts, num_steps = self._parts, self._parts.position.num_steps
        batches: EvalBatches = parts.val_loader.batch_sampler  # type: ignore[assignment]
        self._processes.agree_on_buffers(network)

        def on_batch(index: int, bad: BadImages) -> None:
            self._val_ledger.note(bad)
            self._reporter.console.advance_bar()
            # Only for batches that every rank has: polling is a collective operation.
            if index < batches.num_common_steps and (signal := self._stop.poll()):
                if signal == GIVE_UP:
                    self._val_ledger.exchange()
                raise Stopped(signal, self._saved(epoch, num_steps, trained.metrics))

        self._reporter.console.start_bar(f"epoch {epoch} validation", len(batches))
        try:
            stats = evaluate(
                wrap_for_eval(self._config, network),
                self._stop.interruptible(parts.val_loader),
                num_images=len(parts.val_images),
                forward_pass=parts.forward_pass,
                on_batch=on_batch,
                with_predictions=True,
            )
        except (LoadingFailed, WaitInterrupted) as ending:
            done = num_steps, lambda: trained.metrics
            raise self._ended_between_steps(ending, epoch, *done) from None
        self._reporter.console.end_bar()
        self._val_ledger.exchange()
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

    def _saved(self, epoch: int, step: int, sums: Metrics) -> str:
        """Save the state of a run that ends early; return what there is to say of that."""
        if self._request.is_performance:
            return ""
        if not self._save(epoch, step, sums):
            return f"the state at epoch {epoch} step {step} could not be saved"
        return (
            f"the state at epoch {epoch} step {step} is saved in {self._request.folder}; go on "
            "with the same command and --auto_resume"
        )

    def _note_best(self, epoch: int, stats: EvalStats) -> None:
        """Keep the weights where this evaluation is the best of the whole run, resumes included.

        Weights whose outputs are not all finite stand in for the best until there are sound ones.
        """
        accuracy = stats.metrics.accuracy_top1
        is_sound = stats.metrics.num_not_finite == 0
        if self._progress.best_accuracy >= (accuracy if is_sound else 0.0):
            return
        # Where they could not be written, the next good ones are tried.
        if self._keep_weights(run_folder.BEST, bare_weights(self._parts, self._config)):
            self._progress.best_accuracy = accuracy if is_sound else -1.0
            self._progress.report.update(best_accuracy_top1=round(accuracy, 3), best_epoch=epoch)
            self._reporter.save_predictions(stats.predictions, epoch)

    def _keep_weights(self, name: str, content: object) -> bool:
        path = self._request.folder / name
        return self._reporter.keep(name, lambda: save_atomically(content, path))

    def _save(self, epoch: int, step: int, sums: Metrics) -> bool:
        """Write checkpoint.pth.tar; a collective operation, ended when the file is whole.

        Returns False on rank 0 where it could not be written.
        """
        is_kept = True
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
            is_kept = self._keep_weights(run_folder.CHECKPOINT, checkpoint.to_cpu(state))
        self._processes.barrier()  # no rank may leave, and be reaped, while the file is written
        return is_kept
