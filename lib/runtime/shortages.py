"""One line for what the machine lacks: memory, shared memory, open files, processes, a compiler.

Neither Python nor torch gives these failures types of their own, so that their words tell them.
"""

from __future__ import annotations

import errno
import re

from lib.runtime.text import printable

_MAX_WORDS = 200  # characters of the failure's own words
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)

OUT_OF_MEMORY = (
    "memory ran out: take a smaller --bs or fewer --workers, or train with TRAIN.ACCUM_STEPS 2"
)
OUT_OF_SHARED_MEMORY = (
    "shared memory (/dev/shm) ran out: give the container more, as docker run --shm-size=8g does, "
    "or load pictures without further processes: --workers 0"
)
OUT_OF_OPEN_FILES = (
    "too many files are open: raise the limit (ulimit -n 65536), or take fewer --workers"
)
OUT_OF_PROCESSES = (
    "no further process or thread can be started: take fewer --workers, or raise the limit "
    "(ulimit -u)"
)
_ANOTHER_ENDED = (
    "another process of this run has ended, and this one with it: the first to end says why"
)
_WITHOUT_COMPILER = (
    "TRAIN.COMPILE needs a C++ compiler, and on cuda Triton: install them (apt-get install g++, "
    "pip install triton; the variables CXX and CC name another compiler), or leave TRAIN.COMPILE "
    "at no"
)
_COMPILER = ("torch._dynamo", "torch._inductor")
_KINDS = (
    (
        r"No working C\+\+ compiler|InvalidCxxCompiler|Failed to find C compiler|TritonMissing"
        r"|working triton",
        _WITHOUT_COMPILER,
    ),
    (r"gloo/transport|ncclRemoteError|remote process exited", _ANOTHER_ENDED),
    (r"Too many open files|received \d+ items of ancdata", OUT_OF_OPEN_FILES),
    (
        r"</?torch_\d|shared memory\(shm\)|shared memory object|insufficient shared memory"
        r"|out of shared memory",
        OUT_OF_SHARED_MEMORY,
    ),
    (
        r"out of memory|[Cc]an(?:'|no)t allocate memory|not enough memory|ALLOC_FAILED|bad_alloc"
        r"|\bMemoryError\b|OutOfMemoryError",
        OUT_OF_MEMORY,
    ),
    (r"can't start new thread|Resource temporarily unavailable", OUT_OF_PROCESSES),
)


def shortage(error: BaseException) -> str | None:
    """Return one line that says what ran out, with the failure's own words; None for all else.

    Also where a data loader's worker failed, whose whole traceback is then the message.
    """
    if not isinstance(error, MemoryError | OSError | RuntimeError):
        return None
    words = _own_words(error)
    for pattern, advice in _KINDS:
        if re.search(pattern, words):
            return f"{advice} ({printable(words[:_MAX_WORDS])})"
    if type(error).__module__.startswith(_COMPILER):
        return f"TRAIN.COMPILE: torch.compile failed ({printable(words[:_MAX_WORDS])}); take no"
    return None


def is_shortage(error: BaseException) -> bool:
    """Tell whether a failure to read a file says nothing about the file: no memory, no handle."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _OUT_OF_FILES


def _own_words(error: BaseException) -> str:
    """Return the failure's kind and message in one line: the last of a traceback within it."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if "Traceback (most recent call last)" in text:
        text = text.rstrip().splitlines()[-1]
    return " ".join(text.split())
