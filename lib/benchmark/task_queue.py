"""Level 2 of torch_npu's queue of kernels, tried in a process of its own: it is read at the start.

Ascend's documents advise it for networks that the host can't feed fast enough; it takes more memory
at its peak. With ASCEND_LAUNCH_BLOCKING=1 there is no queue.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

from lib.runtime.environment import task_queue_level, variables_with

_VARIABLE, _DEEPER = "TASK_QUEUE_ENABLE", "2"

_SPEED = re.compile(r": ([0-9.e+]+) images/s$", re.MULTILINE)
_MIN_GAIN = 1.01  # less is chance


def is_worth_trying(device_type: str) -> bool:
    """Tell whether this process computes on an npu with a queue of a lower level."""
    return device_type == "npu" and task_queue_level() not in (_DEEPER, "")


def setting_if_faster(
    command: Sequence[str], usual_images_per_s: float, say: Callable[[str], None]
) -> str:
    """Return what to set before a command for level 2 where that is faster, else ''.

    `command` is a pick_speed of one way, whose speed is `usual_images_per_s` at the level before.
    """
    environment = variables_with({_VARIABLE: _DEEPER})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    speeds = [float(speed) for speed in _SPEED.findall(done.stdout)]
    setting = f"{_VARIABLE}={_DEEPER}"
    if not speeds:
        say(f"{setting}: could not be measured")
        return ""
    say(f"{setting}: {max(speeds):.4g} images/s, where {usual_images_per_s:.4g} are usual")
    return f"{setting} " if max(speeds) > _MIN_GAIN * usual_images_per_s else ""
