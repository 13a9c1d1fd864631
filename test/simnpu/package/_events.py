"""What the device was asked for, in order, and the file in which tests read it."""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook
from torch_npu import _C
from torch_npu.npu.switches import settings


def record_steps() -> None:
    """Note each optimizer step, and write all at exit where SIMNPU_REPORT names a folder."""
    register_optimizer_step_post_hook(lambda optimizer, *_: _C.note(f"{type(optimizer).__name__}"))
    if folder := os.environ.get("SIMNPU_REPORT"):
        atexit.register(_write, Path(folder), os.getpid())


def _write(folder: Path, pid: int) -> None:
    peak_bytes = [_C.memory_use(index)[1] for index in range(_C.num_devices())]
    if os.getpid() != pid or not any(peak_bytes):  # a forked child, or a process that only counts
        return
    report = {
        "rank": int(os.environ.get("RANK", 0)),
        "device": _C.current_device(),
        "peak_bytes": peak_bytes,
        "settings": settings,
        "events": _C.events(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{pid}.json").write_text(json.dumps(report))
