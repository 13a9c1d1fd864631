"""A training run: train, evaluate, keep the best, save, stop when asked to."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from yacs.config import CfgNode

from lib.metrics.meter import Metrics
from lib.metrics.stats import EvalStats
from lib.runtime import run_folder
from lib.runtime.cli import PartlyFailed
from lib.runtime.distributed import Processes, StopRequest
from lib.training.build import build_training
from lib.training.context import RunContext
from lib.training.epochs import evaluate_epoch, train_epoch
from lib.training.profiling import Profiling
from lib.training.progress import restore_training
from lib.training.run_console import RunConsole
from lib.training.run_report import save_run_predictions, write_run_report
from lib.training.run_writer import RunWriter
from lib.training.saving import StateSaver
from lib.training.shared_ledger import shared_ledger
from lib.training.start import TrainRequest


def train(config: CfgNode, request: TrainRequest, processes: Processes) -> None:
    """Train to the configuration's last epoch; leave weights and result.json in the run folder.

    Raises ValueError and FileNotFoundError for what the user can mend, Stopped after a signal (the
    state is saved by then), and PartlyFailed where the last weights could not be written.
    """
    began_s = time.monotonic()
    setup = build_training(config, request, processes)
    progress = restore_training(setup, processes)
    console = RunConsole(setup, request, processes)
    writer = RunWriter(setup, request, processes, console=console)
    with ExitStack() as stack:
        if processes.ranks.is_main:
            stack.enter_context(run_folder.lock(request.folder))
        processes.barrier()  # all ranks have read what they start from before it is moved
        stack.callback(console.end_bar)
        stack.callback(writer.close)
        stop = StopRequest(processes, time.monotonic, saves=not request.is_performance)
        stack.enter_context(stop)
        writer.open()
        ledger = partial(
            shared_ledger,
            setup.config.DATASET,
            writer.ledger_path,
            processes=processes,
            stop=stop,
            console=console,
        )
        run = RunContext(
            request=request,
            processes=processes,
            setup=setup,
            progress=progress,
            console=console,
            writer=writer,
            saver=StateSaver(setup, progress, request=request, processes=processes, writer=writer),
            stop=stop,
            ledger=ledger(setup.data.images, use="train"),
            val_ledger=ledger(setup.data.val_images, use="validate"),
            profiling=Profiling(request, processes, console),
        )
        try:
            num_epochs = _measure(run) if request.is_performance else _train_and_evaluate(run)
        except BaseException:
            for loader in (setup.data.loader, setup.data.val_loader):
                loader.end_workers()
            raise
        _finish(run, num_epochs=num_epochs, began_s=began_s)


def _train_and_evaluate(run: RunContext) -> int:
    """Run the epochs that are left, up to an early stop; return how many the run has.

    Where weights are averaged, theirs are the figures that count: of the `Test:` line, of the best
    weights and of the early stop. The last weights' own are given too.
    """
    setup, num_epochs = run.setup, run.setup.config.TRAIN.END_EPOCH
    _forget_a_lost_best(run)
    for epoch in range(setup.data.position.epoch, num_epochs):
        if _has_stalled(run, epoch):
            return epoch
        trained = train_epoch(run, epoch)
        last_weights_stats = None
        if setup.average is not None:
            last_weights_stats = evaluate_epoch(run, epoch, setup.network, trained=trained)
        stats = evaluate_epoch(run, epoch, setup.eval_network, trained=trained)
        _keep_the_best(run, epoch, stats)
        run.progress.metrics = Metrics()
        run.progress.note_evaluation(stats, last_weights_stats)
        run.console.epoch_evaluated(stats, last_weights_stats)
        run.writer.record_epoch(
            epoch, stats, run.progress, last_weights_stats=last_weights_stats, trained=trained
        )
        run.saver.save_state(epoch + 1, 0, Metrics())
    return num_epochs


def _measure(run: RunContext) -> int:
    """Run the steps of a performance run: no evaluation, no weights."""
    num_wanted, num_epochs = run.request.stop_step or 0, run.setup.config.TRAIN.END_EPOCH
    for epoch in range(run.setup.data.position.epoch, num_epochs):
        stats = train_epoch(run, epoch, num_steps_left=num_wanted - run.num_steps_run)
        run.progress.report.update(
            accuracy_top1=round(stats.metrics.accuracy_top1, 3),
            accuracy_top5=round(stats.metrics.accuracy_top5, 3),
            num_steps=run.num_steps_run,
        )
        if run.num_steps_run >= num_wanted:
            break
    return num_epochs


def _has_stalled(run: RunContext, epoch: int) -> bool:
    """Tell whether the run ends before this epoch, TRAIN.EARLY_STOP having passed in vain."""
    patience, position = run.setup.config.TRAIN.EARLY_STOP, run.setup.data.position
    is_begun = epoch == position.epoch and position.step > 0
    if not patience or is_begun:
        return False
    # Rank 0 decides: only there a best file that could not be written does not count.
    num_in_vain = run.processes.gather(run.progress.num_epochs_since_best(epoch))[0]
    if num_in_vain >= patience:
        run.console.stopped_early(epoch - 1)
    return num_in_vain >= patience


def _keep_the_best(run: RunContext, epoch: int, stats: EvalStats) -> None:
    """Keep the weights where this evaluation is the best of the whole run, resumes included.

    Weights whose outputs are not all finite stand in for the best until there are sound ones.
    """
    accuracy, progress = stats.metrics.accuracy_top1, run.progress
    is_sound = stats.metrics.num_not_finite == 0
    if progress.best_accuracy >= (accuracy if is_sound else 0.0):
        return
    if run.saver.save_weights(run_folder.BEST):  # else the next good ones are tried
        progress.best_accuracy = accuracy if is_sound else -1.0
        progress.report.update(best_accuracy_top1=round(accuracy, 3), best_epoch=epoch)
        save_run_predictions(run.setup, run.request, run.writer, stats.predictions, epoch=epoch)


def _forget_a_lost_best(run: RunContext) -> None:
    """Let the next weights be the best where those of a resumed run have lost their file."""
    start = run.setup.start
    if start.is_resume and start.path and not start.path.with_name(run_folder.BEST).is_file():
        run.progress.best_accuracy = -1.0


def _finish(run: RunContext, *, num_epochs: int, began_s: float) -> None:
    """Write what a whole run leaves."""
    is_whole_run = not run.request.is_performance
    if is_whole_run:
        run.saver.save_weights(run_folder.FINAL)
    was_done = run.setup.data.position.epoch == num_epochs
    if not (was_done and run.writer.repeat_result(num_epochs)):
        run.writer.result(
            run.progress,
            num_epochs=num_epochs,
            num_bad_images=run.ledger.num_bad + run.val_ledger.num_bad,
            duration_s=time.monotonic() - began_s,
        )
    if is_whole_run and run.processes.ranks.is_main:
        write_run_report(run.setup, run.request, run.console)
    if run.writer.lost_a_file:
        raise PartlyFailed("some files could not be written; see the warnings above")
