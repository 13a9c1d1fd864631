"""Weights and the state of a run, written to its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lib.metrics.meter import Metrics
from lib.models.weights.torch_file import save_atomically
from lib.runtime import run_folder
from lib.runtime.distributed import Processes
from lib.training.build import TrainingSetup
from lib.training.checkpoint import rng_states, to_cpu
from lib.training.progress import Progress, bare_weights, training_state
from lib.training.run_writer import RunWriter
from lib.training.start import TrainRequest


class StateSaver:
    """Writes weights and checkpoint.pth.tar; a full disk costs the file and not the run."""

    def __init__(
        self,
        setup: TrainingSetup,
        progress: Progress,
        *,
        request: TrainRequest,
        processes: Processes,
        writer: RunWriter,
    ):
        self._setup, self._progress, self._writer = setup, progress, writer
        self._request, self._processes = request, processes

    def save_weights(self, name: str) -> bool:
        """Write the weights that are evaluated; return False where they could not be written."""
        return self._write(name, lambda: bare_weights(self._setup))

    def save_state(self, epoch: int, step: int, metrics: Metrics) -> bool:
        """Write checkpoint.pth.tar; a collective operation, ended when the file is whole.

        Returns False on rank 0 where it could not be written.
        """
        is_written = True
        rng = self._processes.gather(rng_states(self._processes.device))
        if self._processes.ranks.is_main:
            position = replace(self._setup.data.position, epoch=epoch, step=step)
            state = training_state(
                self._setup, self._progress, position=position, metrics=metrics, rng=rng
            )
            is_written = self._write(run_folder.CHECKPOINT, lambda: to_cpu(state))
        self._processes.barrier()  # no rank may leave, and be reaped, while the file is written
        return is_written

    def save_ending(self, epoch: int, step: int, metrics: Metrics) -> str:
        """Save the state of a run that ends early; return what there is to say of that."""
        if self._request.is_performance:
            return ""
        if not self.save_state(epoch, step, metrics):
            return f"the state at epoch {epoch} step {step} could not be saved"
        return (
            f"the state at epoch {epoch} step {step} is saved in {self._request.folder}; go on "
            "with the same command and --auto_resume"
        )

    def _write(self, name: str, content: Callable[[], object]) -> bool:
        """Write what `content` returns, which only rank 0 is asked for."""
        path = self._request.folder / name
        return self._writer.write_or_warn(name, lambda: save_atomically(content(), path))
