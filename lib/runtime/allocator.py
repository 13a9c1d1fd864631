"""What becomes of memory that is freed in this process."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next use; return False where it is not glibc.

    By default glibc takes a large block from the kernel and gives it back when it is freed. Each
    step of a network then begins with thousands of pages that the kernel has to clear again. What
    is kept instead is what the process needed at its peak, and at worst a few of the largest blocks
    more: glibc before 2.38 is slow to find an aligned block again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
