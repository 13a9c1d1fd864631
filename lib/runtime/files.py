"""Writes of which nothing or everything is seen, and that hit no file but the one that is meant."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from lib.runtime.text import printable

_CHUNK = 2**20
_NUM_NAMES_TRIED = 100
_MAX_NAME_LENGTH = 40  # of the target's in a scratch file's that is drawn


def sha256_of(path: Path) -> str:
    """Return the SHA-256 sum of a file in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path | str | None]) -> None:
    """Raise ValueError where a file to write is one of those to read, under whatever name or link.

    `outputs` has the option, or argument, that each path was given by. Paths that are None, or
    where no file is, are let through; two outputs may not be one file.
    """
    named: dict[str, str] = {}
    for option, path in outputs.items():
        if (
            path is not None
            and (first := named.setdefault(os.path.realpath(path), option)) != option
        ):
            raise ValueError(
                f"{option} {printable(str(path))!r} is the file of {first}: name another"
            )
    option_of = {}
    for option, path in outputs.items():
        if path is not None and (identity := _identity(path)):
            option_of[identity] = (option, path)
    if not option_of:
        return
    for read in inputs:
        if read is None or (identity := _identity(read)) not in option_of:
            continue
        option, path = option_of[identity]
        same = "" if os.fspath(read) == os.fspath(path) else f" under the name {str(read)!r}"
        raise ValueError(
            f"{option} {printable(str(path))!r} is a file to read{printable(same)}, and would be "
            "overwritten: give another name"
        )


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # not there; an address; a name that no file can have
        return None
    return found.st_dev, found.st_ino


def write_json(content: object, path: Path) -> None:
    """Write `content` as indented JSON, NaN and infinity as null, in one piece. Raises OSError."""
    write_atomically(f"{json.dumps(finite(content), indent=2)}\n".encode(), path)


def finite(content: object) -> object:
    """Return mappings and lists with None for NaN and infinity, which JSON has not."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_atomically(data: bytes | memoryview, path: str | Path, *, durable: bool = True) -> None:
    """Write aside and rename, so that `path` never holds half a file, whatever ends the process.

    Without `durable` a power cut may lose the file (not halve it), and thousands of small files are
    written many times faster.
    Raises OSError (a full disk, say); the old file then stands untouched, with no debris.
    """
    with open_atomically(path, durable=durable) as file:
        write_whole(file, data)


def write_whole(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of `data`: one call writes up to 2 GiB, and less on a disk nearly full."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def open_atomically(path: str | Path, *, durable: bool = True) -> Iterator[FileIO]:
    """Yield a file to write to that becomes `path` at the end of the block; see above.

    Where the block raises, the old file stands untouched. A link is replaced, not followed.
    """
    if _is_device(path):  # such as /dev/null, which a rename would replace
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    try:
        with scratch_beside(path) as file:
            yield file
            if durable:
                os.fsync(file.fileno())
            os.close(os.dup(file.fileno()))  # where a file over the network says what failed
            os.replace(file.name, path)
    except OSError as error:  # named after the file that is missing now
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    if durable:
        _flush_folder(os.path.dirname(path) or ".")


@contextmanager
def scratch_beside(path: str | Path, *, suffix: str = "") -> Iterator[FileIO]:
    """Yield a new file in the folder of `path`, to be renamed to it at the end of the block.

    Where the block raises, or has not renamed it, the file is removed. It is made under a name that
    was free, and no link is followed. The next process that writes `path` removes what a killed one
    left. Raises OSError.
    """
    with _new_beside(*os.path.split(path), suffix) as file:
        try:
            yield file
        finally:
            if _is_at(file, file.name):
                os.unlink(file.name)


def append_lines(lines: bytes, path: Path) -> None:
    """Add whole lines to a file, all of them or none; a line that is broken off there ends first.

    Raises OSError, also where `path` is a link.
    """
    with FileIO(open_in_place(path, os.O_RDWR | os.O_APPEND), "r+") as file:
        size = os.fstat(file.fileno()).st_size
        is_broken = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        try:
            write_whole(file, (b"\n" if is_broken else b"") + lines)
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def open_in_place(path: str | Path, flags: int) -> int:
    """Return a descriptor of a file that is made where it isn't there; no link is followed.

    It is an `opener` for `open`, too.

    Raises OSError, also where `path` is a link: what that leads to isn't meant.
    """
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a link: remove it", os.fspath(path)) from None
        raise


def _new_beside(folder: str, name: str, suffix: str) -> FileIO:
    """Return a new, locked file: who holds no lock has been killed."""
    for attempt in range(_NUM_NAMES_TRIED):
        drawn = f"{name[:_MAX_NAME_LENGTH]}.{secrets.token_hex(4)}"
        path = os.path.join(folder, f".{name if attempt < 2 else drawn}.tmp{suffix}")
        try:
            file = FileIO(path, "x")
        except FileExistsError:
            _remove_debris(path)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = _is_at(file, path)
        except BlockingIOError:  # another process takes it for debris
            is_ours = False
        except OSError:  # a file system without locks, where no process removes debris either
            is_ours = True
        if is_ours:
            return file
        file.close()
    raise FileExistsError(f"no file can be made beside {os.path.join(folder, name)}")


def _remove_debris(path: str) -> None:
    """Remove a plain file that no process holds."""
    with suppress(OSError):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with FileIO(os.open(path, flags)) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, path):
                    os.unlink(path)


def _is_at(file: FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _is_device(path: str | Path) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _flush_folder(folder: str) -> None:
    """Put a rename itself on the disk: it must outlive a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_URL_STARTS = ("http://", "https://")


def is_url(root: Path | str) -> bool:
    """Return True for an address, False for a path."""
    return str(root).lower().startswith(_URL_STARTS)
