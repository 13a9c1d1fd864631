"""What torch says of the devices, asked in a process of its own: it may fail, hang or crash."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_REPO = Path(__file__).resolve().parents[3]
_TIMEOUT_S = 180  # the first kernel on an npu is compiled
RAISED = re.compile(  # an exception's line in what Python prints
    r"^(?:[A-Za-z_][\w.]*)?(?:Error|Exception)\b.*", re.MULTILINE
)
# Prints a line after each stage, so that what it had reached is known where it goes no further.
_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
print("imported", flush=True)
from lib.runtime import device
chosen = device.select_device(sys.argv[2])
count = device.num_devices(sys.argv[2]) or 0
names = [device.describe(torch.device(chosen.type, n)) for n in range(count)]
print(json.dumps([chosen.type, names or [device.describe(chosen)]]), flush=True)
assert torch.ones(2, 2, device=chosen).matmul(torch.ones(2, 2, device=chosen)).sum().item() == 8
print("computed", flush=True)
"""


@dataclass(frozen=True)
class Probe:
    """How far torch came.

    Args:
        imported: `import torch` worked.
        kind: npu, cuda or cpu, what training would take; empty where torch did not get there.
        names: the devices of that kind, as the training log names them.
        computed: a small product on the first of them came out right.
        error: why it went no further, in one line; empty where it did.
        log: all that the process wrote on stderr.
    """

    imported: bool = False
    kind: str = ""
    names: tuple[str, ...] = ()
    computed: bool = False
    error: str = ""
    log: str = ""


def run_probe(device: str = "auto", *, timeout_s: float = _TIMEOUT_S) -> Probe:
    """Import torch, choose `device` as training does and compute on it; never raises for torch."""
    command = [sys.executable, "-c", _SCRIPT, str(_REPO), device]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as late:
        return _read(_decoded(late.stdout), _decoded(late.stderr), f"no end in {timeout_s:g} s")
    error = "" if done.returncode == 0 else _reason(done.returncode, done.stderr)
    return _read(done.stdout, done.stderr, error)


def _read(stdout: str, stderr: str, error: str) -> Probe:
    lines = stdout.splitlines()
    kind, names = "", ()
    for line in lines:
        if line.startswith('["'):  # torch_npu prints warnings of its own between the stages
            kind, names = json.loads(line)
    return Probe("imported" in lines, kind, tuple(names), "computed" in lines, error, stderr)


def _reason(code: int, stderr: str) -> str:
    """Return the exception's first line: torch_npu's messages go on with lines of its own."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    raised = RAISED.findall(stderr)
    lines = raised or [line for line in stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {code}"


def _decoded(output: str | bytes | None) -> str:
    """Return what a process had written by a timeout: bytes, whatever was asked for, or None."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
