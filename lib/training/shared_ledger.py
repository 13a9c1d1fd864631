"""The bad pictures of a run's training or validation, over all ranks."""

from __future__ import annotations

from pathlib import Path

from yacs.config import CfgNode

from lib.data.bad_images import BadImage, BadImageLedger, lost_classes_remark
from lib.data.image_list import ImageList
from lib.runtime.console import Console
from lib.runtime.distributed import Processes, StopRequest


class SharedLedger:
    """One rank's ledger, which tells the others what it has met."""

    def __init__(
        self,
        ledger: BadImageLedger,
        processes: Processes,
        images: ImageList,  # those that may be bad
        *,
        said: str,  # what follows the number of bad pictures
        stop: StopRequest,
        console: Console,
    ):
        self._ledger, self._processes, self._images = ledger, processes, images
        self._said, self._stop, self._console = said, stop, console
        self._num_said = 0

    @property
    def num_bad(self) -> int:
        """Bad pictures that this rank knows of."""
        return self._ledger.num_bad

    def note(self, bad: list[BadImage]) -> None:
        """Record them; what ends the run on one of several ranks has to end it on all.

        Raises ValueError on a single process, as the ledger does.
        """
        try:
            self._ledger.record(bad)
        except ValueError:
            if self._processes.ranks.world_size == 1:
                raise
            self._stop.give_up()

    def exchange(self) -> None:
        """Let every rank know what all have met, and say what came new; a collective operation.

        Raises ValueError on all ranks, as the ledger does.
        """
        self._ledger.merge(self._processes.gather(self._ledger.bad_images))
        if self.num_bad > self._num_said:
            self._num_said = self.num_bad
            self._console.say(f"[Warning] {self.num_bad} {self._said}")
            if remark := lost_classes_remark(self._images, self._ledger.bad_images):
                self._console.say(remark)


def shared_ledger(
    data: CfgNode,  # the configuration's DATASET
    path: Path | None,  # of the list of bad pictures, on rank 0
    images: ImageList,
    *,
    use: str,  # train or validate
    processes: Processes,
    stop: StopRequest,
    console: Console,
) -> SharedLedger:
    """Return the ledger of the pictures that a run trains on, or of those it validates with."""
    return SharedLedger(
        BadImageLedger(
            path,
            policy=data.BAD_IMAGES,
            max_share=data.BAD_IMAGES_MAX_SHARE,
            num_images=len(images),
        ),
        processes,
        images,
        said=f"images to {use} cannot be read and are left out; they are listed in {path}",
        stop=stop,
        console=console,
    )
