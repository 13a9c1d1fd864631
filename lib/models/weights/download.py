"""One file over http(s) into its place in a cache: resumed, checked, and never half there."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path

from lib.models.weights.cache import Place
from lib.models.weights.forms import fault_of
from lib.models.weights.transfer import (
    DownloadError,
    Interrupted,
    Note,
    Source,
    TooSlow,
    Unreachable,
    no_space,
    receive,
    size_of,
)
from lib.runtime.checked import read_json
from lib.runtime.files import open_in_place, sha256_of, write_json

# Seconds before each further try; they are counted anew once more has arrived than ever before.
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_NOTE = {"url": str, "validator": str, "num_bytes": range(-1, 2**63), "sha256": str, "commit": str}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def download(source: Source, place: Place, *, say: Callable[[str], None]) -> Path:
    """Return the file, downloaded where no other process has done so meanwhile.

    A part that an earlier process left is gone on with. Raises DownloadError.
    """
    folder = place.part.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(place.part, source, say) as file:
            found = place.find()
            if found is not None:
                return found
            note = _whole(source, file, place.part, say)
            path = place.keep(note.sha256, note.commit)
    except DownloadError:
        raise
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise no_space(source, folder, "it is full") from None
        raise DownloadError(
            f"the cache {folder} cannot be written ({error.strerror or error}): let TORCH_HOME, "
            "and HF_HUB_CACHE for files of the Hugging Face hub, be folders that can"
        ) from None
    say(f"{source.name} is kept as {path}")
    return path


@contextmanager
def _alone(part: Path, source: Source, say: Callable[[str], None]) -> Iterator[FileIO]:
    """Yield the part, open for appending and locked; wait while another process has it."""
    while True:
        file = FileIO(part, "a+", opener=open_in_place)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is downloading {source.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, part):
            break
        file.close()  # the other has finished: what was locked here is renamed or removed
    try:
        yield file
    finally:
        if not _is_at(file, part) or size_of(file) == 0:
            _note_path(part).unlink(missing_ok=True)
            if _is_at(file, part):
                part.unlink()
        file.close()


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _whole(source: Source, file: FileIO, part: Path, say: Callable[[str], None]) -> Note:
    """Fill the part until it is the whole file, and check it; the note has its true sha256."""
    note = _read_note(part, source)
    was_begun = size_of(file) > 0
    _fill(source, file, note, part=part, say=say)
    digest = sha256_of(part)
    expected = source.sha256 or note.sha256
    fault = fault_of(part, source.url)
    if not digest.startswith(expected):
        fault = f"its sha256 is {digest[:16]}..., published is {expected[:16]}"
    if not fault:
        os.fsync(file.fileno())
        note.sha256 = digest
        return note
    file.truncate(0)
    if was_begun:  # its beginning is of another time: once more, from the start
        return _whole(source, file, part, say)
    raise DownloadError(
        f"{source.url} was downloaded and removed: {fault}; it is damaged or another file: try "
        f"again, {source.instead}"
    )


def _fill(
    source: Source, file: FileIO, note: Note, *, part: Path, say: Callable[[str], None]
) -> None:
    def keep_note() -> None:
        write_json(asdict(note), _note_path(part))

    num_failed, most = 0, size_of(file)
    while True:
        try:
            receive(source, file, note, keep_note=keep_note, say=say)
            return
        except Interrupted as error:
            reason, is_slow = str(error), isinstance(error, TooSlow)
            is_offline = isinstance(error, Unreachable) and size_of(file) == 0
        # A server without parts begins anew each time: what it sends again is no progress.
        num_failed = 0 if size_of(file) > most and not is_slow else num_failed
        most = max(most, size_of(file))
        if num_failed == len(_WAITS_S) or is_offline:
            kept = "; what has arrived is kept, the next run goes on from there"
            times = f"{1 + num_failed} times" if num_failed else "once"
            raise DownloadError(
                f"{source.url} cannot be downloaded: {reason} (tried {times})"
                f"{kept if size_of(file) else ''}; check the network and its proxy, "
                f"{source.instead}"
            )
        time.sleep(_WAITS_S[num_failed])
        num_failed += 1


def _read_note(part: Path, source: Source) -> Note:
    try:
        found = read_json(_note_path(part), _NOTE)
    except (OSError, ValueError):  # none yet, or another's
        return Note(source.url)
    note = Note(*(found[name] for name in _NOTE))
    return note if note.url == source.url else Note(source.url)


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
