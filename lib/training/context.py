"""The things that live as long as a run does."""

from __future__ import annotations

from dataclasses import dataclass

from lib.runtime.distributed import Processes, StopRequest
from lib.training.build import TrainingSetup
from lib.training.profiling import Profiling
from lib.training.progress import Progress
from lib.training.run_console import RunConsole
from lib.training.run_writer import RunWriter
from lib.training.saving import StateSaver
from lib.training.shared_ledger import SharedLedger
from lib.training.start import TrainRequest


@dataclass(kw_only=True)
class RunContext:
    """A run that is under way."""

    request: TrainRequest
    processes: Processes
    setup: TrainingSetup
    progress: Progress
    console: RunConsole
    writer: RunWriter
    saver: StateSaver
    stop: StopRequest
    ledger: SharedLedger  # of bad training pictures
    val_ledger: SharedLedger
    profiling: Profiling
    num_steps_run: int = 0  # of this process, over its epochs
