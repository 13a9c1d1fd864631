"""What a downloaded file's bytes tell: weights of a known form, whole or cut; or a web page."""

from __future__ import annotations

import html
import json
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import IO

_PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml)", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_SUFFIXES = (".pth.tar", ".safetensors", ".pdparams", ".pth", ".pt", ".tar", ".bin")
PICKLE, ZIP, SAFETENSORS = b"\x80", b"PK", ".safetensors"
_MAX_TITLE = 60
# What torch.save wrote before 1.6: five pickles, then each storage's length and numbers.
_TORCHS_MAGIC, _NUM_TORCHS_PICKLES, _LENGTH_BYTES = 0x1950A86A20F9469CFC6C, 5, 8
_TORCHS_MAGIC_BYTES, _TORCHS_BEGINNING = _TORCHS_MAGIC.to_bytes(10, "little"), 64
_ITEM_BYTES = MappingProxyType(
    {"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2}
    | {"LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1}
    | {"BoolStorage": 1, "UntypedStorage": 1, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}
)


def is_safetensors(beginning: bytes, num_bytes: int) -> bool:
    """Tell by its first bytes whether a file is of safetensors: its header's length, then JSON."""
    length = int.from_bytes(beginning[:8], "little")
    return beginning[8:9] == b"{" and 2 <= length <= num_bytes - 8


def is_plain_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle, but none that torch.save wrote."""
    with open(path, "rb") as file:
        beginning = file.read(_TORCHS_BEGINNING)
    return beginning.startswith(PICKLE) and _TORCHS_MAGIC_BYTES not in beginning


def weight_suffix(name: str) -> str:
    """Return the ending that weight files have, whole (`.pth.tar`); '' where a name has none."""
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")


def web_page_title(beginning: bytes) -> str | None:
    """Return the title of a web page ('' where it has none), None for anything else."""
    if not _PAGE.match(beginning):
        return None
    title = _TITLE.search(beginning)
    text = html.unescape(title[1].decode("utf-8", "replace")) if title else ""
    return " ".join(text.split())[:_MAX_TITLE]


def fault_of(path: Path, name: str) -> str:
    """Return what shows that a file is no weights, or cut short; '' where nothing does.

    `name` ends as the file's name or address does: cut short, safetensors are told by that only.
    """
    num_bytes = path.stat().st_size
    with open(path, "rb") as file:
        beginning = file.read(16)
        is_named_so = name.partition("?")[0].endswith(SAFETENSORS)
        if is_named_so or is_safetensors(beginning, num_bytes):
            length = int.from_bytes(beginning[:8], "little")
            file.seek(8)
            return _safetensors_fault(file.read(min(length, num_bytes)), length, num_bytes)
    if beginning.startswith(ZIP):
        return "" if zipfile.is_zipfile(path) else f"it is cut short, at {num_bytes} bytes"
    if beginning.startswith(PICKLE):
        return _pickle_fault(path, num_bytes)
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
    return _length_fault(num_bytes, 8 + length + max(ends, default=0))


def _length_fault(num_bytes: int, whole: int) -> str:
    return "" if whole == num_bytes else f"it has {num_bytes} bytes and should have {whole}"


def _pickle_fault(path: Path, num_bytes: int) -> str:
    """The form: instructions, the last one STOP; nothing of them is carried out here."""
    with open(path, "rb") as file:
        try:
            is_torchs = any(word == _TORCHS_MAGIC for _, word, _ in pickletools.genops(file))
            whole = _torchs_length(file) if is_torchs else file.tell()
        except Exception:  # damaged pickles raise whatever their bytes lead to
            return f"it is cut short or damaged, at {num_bytes} bytes"
    return _length_fault(num_bytes, whole)


def _torchs_length(file: IO[bytes]) -> int:
    file.seek(0)
    reader = _StorageLengths(file, encoding="latin1")
    for _ in range(_NUM_TORCHS_PICKLES):
        reader.load()
    return file.tell() + sum(_LENGTH_BYTES + length for length in reader.num_bytes.values())


class _Nothing(dict[object, object]):
    """Stands for an object of any class, which is not made."""

    def __init__(self, *arguments: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Have no state."""


class _StorageLengths(pickle.Unpickler):
    """Notes the storages that are asked for; calls nothing that the pickle names."""

    def __init__(self, file: IO[bytes], *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.num_bytes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> type:
        return OrderedDict if name == "OrderedDict" else type(name, (_Nothing,), {})

    def persistent_load(self, wanted: tuple[str, type, str, str, int]) -> type | None:
        if wanted[0] != "storage":
            return wanted[1]  # the class of a module, beside its source
        _, kind, key, _, num_items = wanted[:5]
        self.num_bytes[key] = num_items * _ITEM_BYTES[kind.__name__]
        return None
