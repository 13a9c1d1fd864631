"""One epoch of a run: its training and its evaluation, to the end or to a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from lib.data.bad_images import BadImages
from lib.data.samplers import EvalBatches
from lib.data.watching import LoadingFailed
from lib.evaluation.loop import evaluate
from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, EvalStats, IntervalStats
from lib.models.build import wrap_for_eval
from lib.report.log import not_finite_line
from lib.runtime.cli import Stopped
from lib.runtime.distributed import GIVE_UP, WaitInterrupted
from lib.training.context import RunContext
from lib.training.loop import train_one_epoch
from lib.training.steps import StepRange, TrainHooks

_NUM_TIMED_STEPS = 2  # the `step_time` lines, whose sum is the compile time


def train_epoch(run: RunContext, epoch: int, *, num_steps_left: int | None = None) -> EpochStats:
    """Train an epoch, or what is left of it; at most `num_steps_left` steps.

    Raises Stopped after a signal, with the state saved.
    """
    setup, data, console = run.setup, run.setup.data, run.console
    steps = _steps_of(run, epoch, num_steps_left)
    data.batches.epoch, data.batches.start_step = epoch, steps.first
    so_far = run.progress.metrics if steps.first else Metrics()
    done = _Done(steps.first, lambda: so_far)
    console.start_bar(f"epoch {epoch}", steps.end, steps.first)
    with _saving_what_is_done(run, epoch, done), ExitStack() as stack:
        run.profiling.begin(stack, num_steps=steps.end - steps.first)
        stats = train_one_epoch(
            setup.model,
            run.stop.interruptible(data.loader),
            optimizer=setup.optimizer,
            forward_pass=setup.forward_pass,
            steps=steps,
            hooks=_hooks(run, epoch, done),
            metrics_so_far=so_far,
            objective=setup.objective,
            num_micro_batches=setup.config.TRAIN.ACCUM_STEPS,
        )
    console.end_bar()
    run.ledger.exchange()  # raises on all ranks after a GIVE_UP
    if steps.end == steps.first:
        stats = run.progress.with_saved_speed(stats)
    run.progress.note_epoch(stats)
    if stats.stop_signal:
        remark = run.saver.save_ending(epoch, stats.num_steps_done, stats.metrics)
        raise Stopped(stats.stop_signal, remark)
    console.epoch_trained(epoch, stats)
    return stats


class _Done:
    """The steps that are done of an epoch, and their metrics, which cost a host sync to know."""

    def __init__(self, num_steps: int, metrics: Callable[[], Metrics]):
        self.num_steps, self.metrics = num_steps, metrics


@contextmanager
def _saving_what_is_done(run: RunContext, epoch: int, done: _Done) -> Iterator[None]:
    """Save what one process alone can save where the block ends between two steps."""
    try:
        yield
    except (LoadingFailed, WaitInterrupted) as ending:
        remark = ""
        if run.processes.ranks.world_size == 1:
            remark = run.saver.save_ending(epoch, done.num_steps, done.metrics())
        if isinstance(ending, WaitInterrupted):
            raise Stopped(ending.signal, remark) from None
        raise LoadingFailed(f"{ending}; {remark}" if remark else str(ending)) from None


def _steps_of(run: RunContext, epoch: int, num_steps_left: int | None) -> StepRange:
    position = run.setup.data.position
    first = position.step if epoch == position.epoch else 0
    end = position.num_steps
    if num_steps_left is not None:
        end = min(end, first + num_steps_left)
    return StepRange(
        first,
        end,
        num_steps=position.num_steps,
        print_freq=run.setup.config.PRINT_FREQ,
        num_warmup=max(0, _NUM_TIMED_STEPS - run.num_steps_run),
        epoch=epoch,
    )


def _hooks(run: RunContext, epoch: int, done: _Done) -> TrainHooks:
    setup, num_steps = run.setup, run.setup.data.position.num_steps
    save_every = setup.config.TRAIN.SAVE_EVERY_STEPS

    def after_step(num_done: int, metrics: Callable[[], Metrics]) -> int:
        """Save where it is due; return the signal that ends the run, or 0."""
        run.num_steps_run += 1
        done.num_steps, done.metrics = num_done, metrics
        if setup.average is not None:
            setup.average.update()
        run.console.advance_bar()
        run.profiling.step()
        is_due = save_every and num_done % save_every == 0 and num_done < num_steps
        if is_due and not run.request.is_performance:
            run.saver.save_state(epoch, num_done, metrics())
        return run.stop.poll()

    def on_interval(stats: IntervalStats) -> None:
        run.console.interval(epoch, stats)
        run.writer.record_interval(epoch, stats)

    return TrainHooks(
        learning_rate=lambda step: setup.schedule.learning_rate(epoch + step / num_steps),
        on_first_step=run.console.first_step,
        on_interval=on_interval,
        on_bad_images=run.ledger.note,
        after_step=after_step,
    )


def evaluate_epoch(
    run: RunContext, epoch: int, network: nn.Module, *, trained: EpochStats
) -> EvalStats:
    """Evaluate a network after an epoch, whose training figures are `trained`.

    Raises Stopped after a signal, and ValueError where weights are NaN or infinite.
    """
    setup, data, console = run.setup, run.setup.data, run.console
    num_steps = data.position.num_steps
    batches: EvalBatches = data.val_loader.batch_sampler  # type: ignore[assignment]
    run.processes.agree_on_buffers(network)

    def on_batch(index: int, bad: BadImages) -> None:
        run.val_ledger.note(bad)
        console.advance_bar()
        # Only for batches that every rank has: polling is a collective operation.
        if index < batches.num_common_steps and (signal := run.stop.poll()):
            if signal == GIVE_UP:
                run.val_ledger.exchange()
            raise Stopped(signal, run.saver.save_ending(epoch, num_steps, trained.metrics))

    console.start_bar(f"epoch {epoch} validation", len(batches))
    with _saving_what_is_done(run, epoch, _Done(num_steps, lambda: trained.metrics)):
        stats = evaluate(
            wrap_for_eval(setup.config, network),
            run.stop.interruptible(data.val_loader),
            num_images=len(data.val_images),
            forward_pass=setup.forward_pass,
            on_batch=on_batch,
            with_predictions=True,
        )
    console.end_bar()
    run.val_ledger.exchange()
    if stats.metrics.num_not_finite:
        _refuse_lost_weights(setup.network, epoch)
        said = not_finite_line(stats, data.val_images.paths)
        console.say(f"{said}; such weights are the best only as long as there are no sound ones")
    return stats


def _refuse_lost_weights(network: nn.Module, epoch: int) -> None:
    """Raise ValueError where weights are NaN or infinite, before they replace a checkpoint.

    Finite ones may still give outputs that are not: BatchNorm's averages need some steps.
    """
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        raise ValueError(
            f"weights are NaN or infinite after epoch {epoch}; nothing is saved of this epoch: "
            "lower TRAIN.LR"
        )
