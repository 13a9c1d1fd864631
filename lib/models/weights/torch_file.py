"""Files of torch.save and of safetensors, read without running what they may hold."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import re
import textwrap
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from lib.models.weights.facts import KEY
from lib.models.weights.forms import PICKLE, SAFETENSORS, ZIP, is_safetensors
from lib.models.weights.stand_ins import STAND_INS
from lib.runtime.files import write_atomically
from lib.runtime.text import printable

_UNKNOWN = re.compile(r"GLOBAL (\S+)")  # in torch's words on a name that it does not know
_REASON = re.compile(r"WeightsUnpickler error:\s*([^\n]+)")
_NOT_PLAIN = "Unsupported operand"  # torch reads pickles of its own protocol alone
_MAX_SHOWN = 120
_BEGINNING, _POINTER = 32, b"version https://git-lfs"
_WAY_OUT = "in the program that wrote it, save its state_dict alone with torch.save"
_DAMAGED = "is damaged or no weight file"
_FAULTS = (
    ("TorchScript", f"is a TorchScript program, not a file of weights: {_WAY_OUT}"),
    ("allocate memory", "asks for more memory than there is, or is damaged"),
)
_MAX_GROWTH, _MAX_UNPACKED = 100, 1 << 30  # of a zip file: torch packs nothing
_NUM_PICKLES = 4  # of a file of before torch 1.6: a magic number, a version, the machine, content
_NPU_FORMAT = "npu_format_/"
# In these, numbers lie in an NPU's memory as everywhere else.
_USUAL_NPU_FORMATS = {"ND", "NCHW", "NHWC", "NCDHW", "NDHWC", "NCL", "NC", "UNDEFINED"}


class Content(NamedTuple):
    """What a file holds."""

    value: object  # most often a mapping
    record: object  # what stands under KEY in the metadata of safetensors; None: nothing


def read_torch_file(path: Path) -> Content:
    """Return what a file of either form holds, told by its content; its tensors on the CPU.

    Objects of other projects are Inert, see `stand_ins`.
    Raises FileNotFoundError, and ValueError for a damaged file or one of another kind.
    """
    shown = printable(str(path))
    if not path.is_file():
        raise FileNotFoundError(f"no such weight file: {shown}")
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING)
    if not beginning:
        raise ValueError(
            f"{shown} is empty: a copy, a download or a save broke off, so fetch it anew"
        )
    if beginning.startswith(_POINTER):
        raise ValueError(
            f"{shown} is a Git LFS pointer, not the file itself: run `git lfs pull` in its "
            "repository, or download the file"
        )
    is_torchs = beginning.startswith((PICKLE, ZIP))
    if is_safetensors(beginning, path.stat().st_size) or (
        path.suffix == SAFETENSORS and not is_torchs
    ):
        return _read_safetensors(path, shown)
    return Content(_load(path, shown), None)


def _read_safetensors(path: Path, shown: str) -> Content:
    import safetensors  # the only reader of this form, and needed for no other

    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            record = (file.metadata() or {}).get(KEY)
            return Content({name: file.get_tensor(name) for name in file.keys()}, record)  # noqa: SIM118
    except Exception as error:  # its errors have no common public base
        raise ValueError(f"{shown} cannot be read: {_line(error)}") from None


def _load(path: Path, shown: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on forms that the messages below name
            _check_unpacked_size(path)
            _check_npu_format(path)
            return _torch_load(path)
    except _Refusal as refusal:
        raise ValueError(f"{shown} {refusal}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"{shown} {_refused(str(error))}") from None
    except Exception as error:  # damaged files raise whatever their bytes lead to
        line = _line(error)
        unread = f"{_DAMAGED} ({line or type(error).__name__})"
        fault = next((fault for words, fault in _FAULTS if words in line), unread)
        raise ValueError(f"{shown} {fault}") from None


def _torch_load(path: Path) -> object:
    """Return what torch.save wrote: as torch reads it, else with stand-ins for what it refuses."""
    with open(path, "rb") as file:  # given the path, torch would go by its ending
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            file.seek(0)
            with torch.serialization.safe_globals(STAND_INS):
                return torch.load(file, map_location="cpu", weights_only=True)


class _Refusal(Exception):
    """Why a file is not read, to stand after its name."""


def _refused(message: str) -> str:
    """Return what torch says of a pickle that it does not read, in one clean line."""
    unknown = _UNKNOWN.search(message)
    if unknown:
        return (
            f"holds more than plain weights, {printable(unknown[1])[:_MAX_SHOWN]}, and is not "
            f"opened, since that could run foreign code: {_WAY_OUT}"
        )
    reason = _REASON.search(message)
    if reason and reason[1].startswith(_NOT_PLAIN):
        return (
            "is damaged, or was saved with another pickle_protocol than torch.save's own: in the "
            "program that wrote it, leave that argument out"
        )
    return f"{_DAMAGED} ({_line(reason[1] if reason else message)}); if it is whole: {_WAY_OUT}"


def _check_unpacked_size(path: Path) -> None:
    """Raise _Refusal for a zip file of a few bytes that would fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    packed = path.stat().st_size
    if unpacked > max(_MAX_UNPACKED, _MAX_GROWTH * packed):
        raise _Refusal(
            f"would unpack {packed / 1e6:.1f} MB to {unpacked / 1e6:.0f} MB: it is damaged or made "
            "to fill the memory"
        )


def _check_npu_format(path: Path) -> None:
    """Raise _Refusal for numbers in an order that only an NPU knows.

    torch_npu casts them to the usual order in the zip files that it writes, but not in those of
    `_use_new_zipfile_serialization=False`, where 2.1 to 2.6 and 2.9 to 2.12 copy storages as they
    are.
    """
    if zipfile.is_zipfile(path):
        return
    formats = {text.removeprefix(_NPU_FORMAT) for text in _texts(path)}
    unusual = sorted(formats - _USUAL_NPU_FORMATS)
    if unusual:
        raise _Refusal(
            f"holds numbers in an NPU's own order ({printable(unusual[0])[:_MAX_SHOWN]}), which "
            "only torch_npu can undo: load it on an NPU, call .cpu() on its tensors and save them "
            "again"
        )


def _texts(path: Path) -> Iterator[str]:
    """Yield the NPU formats that the pickles of an old torch file state."""
    with open(path, "rb") as file, contextlib.suppress(ValueError):  # torch.load tells of damages
        for _ in range(_NUM_PICKLES):
            for _, argument, _ in pickletools.genops(file):
                if isinstance(argument, str) and argument.startswith(_NPU_FORMAT):
                    yield argument


def _line(error: object) -> str:
    """Return an error's words in one line, cut at a word."""
    words = printable(" ".join(str(error).split()))
    return textwrap.shorten(words, _MAX_SHOWN, placeholder=" ...") or words[:_MAX_SHOWN]


def save_atomically(content: object, path: Path) -> None:
    """Write `content` with torch.save so that `path` holds either the old or the new, whole file.

    Raises OSError (a full disk, say) and then leaves the old file and no debris.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(buffer.getbuffer(), path)
