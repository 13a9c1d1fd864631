"""What a downloaded file's bytes tell: weights of a known form, whole or cut; or a web page."""

from __future__ import annotations

import html
import json
import re
import zipfile
from pathlib import Path

_PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_PICKLE, _ZIP = b"\x80", b"PK"
_MAX_TITLE = 60


def web_page_title(beginning: bytes) -> str | None:
    """Return the title of a web page ('' where it has none), None for anything else."""
    if not _PAGE.match(beginning):
        return None
    title = _TITLE.search(beginning)
    text = html.unescape(title[1].decode("utf-8", "replace")) if title else ""
    return " ".join(text.split())[:_MAX_TITLE]


def fault_of(path: Path, name: str) -> str:
    """Return what shows that a file is no weights, or cut short; '' where nothing does.

    `name` ends as the file's name or address does: safetensors can be told by that only.
    """
    num_bytes = path.stat().st_size
    with open(path, "rb") as file:
        beginning = file.read(16)
        if name.partition("?")[0].endswith(".safetensors"):
            length = int.from_bytes(beginning[:8], "little")
            file.seek(8)
            return _safetensors_fault(file.read(min(length, num_bytes)), length, num_bytes)
    if beginning.startswith(_ZIP):
        return "" if zipfile.is_zipfile(path) else f"it is cut short, at {num_bytes} bytes"
    if beginning.startswith(_PICKLE):
        return ""
    return f"it holds no weights, {num_bytes} bytes that begin with {beginning!r}"


def _safetensors_fault(header: bytes, length: int, num_bytes: int) -> str:
    """The form: 8 bytes of the header's length, the header in JSON, then the numbers."""
    if not header.startswith(b"{"):
        return f"it is no safetensors file, {num_bytes} bytes"
    if len(header) < length:
        return f"it is cut short, at {num_bytes} bytes"
    try:
        entries = json.loads(header)
        ends = [e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return "its safetensors header is damaged"
    whole = 8 + length + max(ends, default=0)
    return "" if whole == num_bytes else f"it has {num_bytes} bytes and should have {whole}"
