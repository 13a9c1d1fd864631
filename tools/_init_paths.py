"""Importing this puts the repository's root on sys.path, so that `from lib.x import y` works."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
