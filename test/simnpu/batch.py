"""Runs entry scripts one after the other in one process on the simulated npu: loads torch once.

    python test/simnpu/batch.py JOBS.json RESULTS.json

Each script runs as `python SCRIPT ARGUMENT...` would run it, with its own console and environment.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

REPO = Path(__file__).resolve().parents[2]


def run(job: dict) -> dict:
    """Run one job; return its exit code, its output and what the device was asked for."""
    from torch_npu import _C
    from torch_npu.npu.switches import settings

    stdout, stderr = io.StringIO(), io.StringIO()
    first_event, environment = len(_C.events()), dict(os.environ)
    os.environ.update(job["environment"])
    sys.argv = [str(REPO / job["script"]), *job["arguments"]]
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(stdout))
        stack.enter_context(redirect_stderr(stderr))
        if job["sigterm_after_step"]:
            stack.enter_context(sigterm_after(job["sigterm_after_step"]))
        code = _exit_code(sys.argv[0])
    os.environ.clear()
    os.environ.update(environment)
    return {
        "code": code,
        "stdout": stdout.getvalue(),
        "stderr": stderr.getvalue(),
        "device": _C.current_device(),
        "settings": dict(settings),
        "peak_bytes": [_C.memory_use(index)[1] for index in range(_C.num_devices())],
        "events": _C.events()[first_event:],
    }


def _exit_code(script: str) -> int:
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def sigterm_after(step: int) -> Iterator[None]:
    """Send this process a SIGTERM at the end of that optimizer step."""
    num_steps = itertools.count(1)

    def end_step(*_: object) -> None:
        if next(num_steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_optimizer_step_post_hook(end_step)
    try:
        yield
    finally:
        hook.remove()


def main() -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(REPO / "tools"))  # where Python finds what lies beside a script
    jobs = json.loads(Path(sys.argv[1]).read_text())
    results = Path(sys.argv[2])
    results.write_text(json.dumps({name: run(job) for name, job in jobs.items()}))


if __name__ == "__main__":
    main()
