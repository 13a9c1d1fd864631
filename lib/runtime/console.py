"""Lines and progress bars on the console of rank 0."""

from __future__ import annotations

import errno
import sys

from tqdm import tqdm

from lib.runtime.text import fitted, printable

_CLOSE_TIMEOUT_S = 10.0


class Console:
    """Lines on stdout and, on a terminal, a progress bar below them; silent where not `enabled`."""

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._bar: tqdm | None = None

    def say(self, line: str) -> None:
        """Print one line at once, above the progress bar; what is in it can't make two of it.

        A narrower terminal gets it broken between words: see `lib.runtime.text.fitted`.
        """
        if self._enabled:
            try:
                tqdm.write(fitted(printable(line, keep="\t"), sys.stdout), file=sys.stdout)
                sys.stdout.flush()
            except OSError as error:
                if error.errno != errno.ENOSPC:  # a log on a full disk loses lines, not the run
                    raise

    def start_bar(self, what: str, num_steps: int, first_step: int = 0) -> None:
        """Begin a progress bar; on anything but a terminal nothing is shown."""
        self.end_bar()
        show = self._enabled and sys.stderr.isatty()
        self._bar = tqdm(
            desc=what,
            total=num_steps,
            initial=first_step,
            unit="step",
            leave=False,
            disable=not show,
        )

    def advance_bar(self) -> None:
        """Move the progress bar on by one step."""
        if self._bar is not None:
            self._bar.update()

    def end_bar(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
