"""Importing this puts the repository's root on sys.path, so that `from lib.x import y` works.

The first import of an entry script: it also lets Ctrl-C end the further ones in one line.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from lib.runtime.cli import end_imports_on_ctrl_c  # noqa: E402  found on the path above

if Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    end_imports_on_ctrl_c()
