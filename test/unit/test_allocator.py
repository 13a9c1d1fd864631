"""lib.runtime.allocator: large blocks that were freed are used again and not asked for anew."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from lib.runtime import allocator

REPO = Path(__file__).resolve().parents[2]
# Page faults of the last of many uses of 64 MiB, by a fresh process; the first ones have to fault,
# and glibc before 2.38 needs about eight to find the block again.
FAULTS = """
import resource
from lib.runtime.allocator import keep_freed_memory
from torch import ones
if {keep}:
    assert keep_freed_memory()
for _ in range(20):
    ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HAS_GLIBC = hasattr(ctypes.CDLL(None), "mallopt")


def num_faults(*, keep: bool) -> int:
    code = FAULTS.format(keep=keep)
    return int(subprocess.check_output([sys.executable, "-c", code], cwd=REPO, text=True))


@pytest.mark.skipif(not HAS_GLIBC, reason="this C library is not glibc")
def test_memory_that_was_freed_is_used_again_without_a_page_fault() -> None:
    assert num_faults(keep=True) < 100 < num_faults(keep=False)


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False
