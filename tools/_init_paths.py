"""Importing this puts the repository's root on sys.path, so that `from lib.x import y` works.

The first import of an entry script: it also lets Ctrl-C end the further ones in one line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from lib.runtime.cli import end_imports_on_ctrl_c  # noqa: E402  found on the path above


def _say_missing_package(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if kind is not ModuleNotFoundError:
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stderr.write(f"[Error] {error}: pip install -r requirements.txt\n")
    sys.stderr.flush()
    os._exit(2)


if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    end_imports_on_ctrl_c()
    sys.excepthook = _say_missing_package  # `run_script` meets what is missing later
