"""From what a user calls weights (a file, a name, an address) to a file."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from lib.models.weights.cache import HUB, Place, hash_in_name, hub_file, place_of
from lib.models.weights.download import download
from lib.models.weights.registry import ENTRIES, Entry, lookup, nearest
from lib.models.weights.transfer import DownloadError, Source
from lib.runtime.cli import say
from lib.runtime.environment import CacheVariables, read_cache_variables
from lib.runtime.files import is_url, sha256_of
from lib.runtime.run_folder import BEST, CHECKPOINT, FINAL
from lib.runtime.text import printable

_IN_A_FOLDER = (BEST, FINAL, CHECKPOINT, "model.safetensors", "pytorch_model.bin")
_MAX_PUBLISHED_BYTES = 2 << 30  # the largest has 0.5 GB


def find_weights(wanted: Path | str) -> Path:
    """Return the file of a path, of a name of the registry, or of an http(s) address.

    What isn't on this machine is downloaded into the cache; stderr says so.
    Raises FileNotFoundError for what is none of them (with the nearest names), OSError in one line
    where the download fails.
    """
    text = str(wanted)
    local = local_weights(wanted)
    if local is not None:
        return local
    if is_url(text):
        _check_address(text)
        return _fetch(next((entry for entry in ENTRIES.values() if entry.url == text), text))
    entry = lookup(text)
    if entry is None:
        raise FileNotFoundError(
            f"no such weight file: {printable(text)}; it is no known name either, the nearest are "
            f"{', '.join(nearest(text))} (python tools/weights.py list shows all)"
        )
    return _fetch(entry)


def local_weights(wanted: Path | str) -> Path | None:
    """Return the file of a path, `~` being the home folder; None for anything else.

    A run folder stands for its best weights, else its last, else its checkpoint; a folder of the
    Hugging Face hub's files for the weights in it. A known name is no folder.
    Raises FileNotFoundError for a folder without weights.
    """
    path = Path(os.path.expanduser(wanted))
    if path.is_file():
        return path
    if not path.is_dir() or lookup(str(wanted)) is not None:
        return None
    for name in _IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"no weights in the folder {printable(str(path))}: wanted is one of "
        f"{', '.join(_IN_A_FOLDER)}, or the path of a file"
    )


def _check_address(url: str) -> None:
    try:
        address = urlsplit(url)
        is_whole = bool(address.hostname) and (address.port or 1) > 0 and url.isprintable()
    except ValueError:  # a port that is no number, half a pair of brackets
        is_whole = False
    if not is_whole or " " in url:
        raise ValueError(f"{url!r} is no address to download from: use https://HOST/PATH")


def published(wanted: Path | str) -> Entry | None:
    """Return the published weights that are meant; None for a file of that name, and for others."""
    return None if local_weights(wanted) is not None else lookup(str(wanted))


def cached(entry: Entry) -> Path | None:
    """Return the file of published weights where it is in the cache already."""
    return place_of(entry.url, read_cache_variables(), is_known=True).find()


def _fetch(wanted: Entry | str) -> Path:
    """Return the file of published weights or of an address, downloaded where it isn't cached.

    Raises OSError in one line.
    """
    caches = read_cache_variables()
    is_known = isinstance(wanted, Entry)
    url = wanted.url if isinstance(wanted, Entry) else wanted
    name = wanted.name if isinstance(wanted, Entry) else url.rpartition("/")[2]
    place = place_of(url, caches, is_known=is_known)
    found = place.find()
    if found is not None:
        return found
    if isinstance(wanted, Entry):
        source = Source(name, url, wanted.sha256, max_bytes=_MAX_PUBLISHED_BYTES)
        return _download(source, place, caches)
    path = _download(Source(name, url), place, caches)
    _warn_of_other_digits(path, url)
    return path


def _warn_of_other_digits(path: Path, url: str) -> None:
    """Say where a name looks as torch.hub's do and the file is another; anybody may name so."""
    digits = hash_in_name(url)
    if digits and not sha256_of(path).startswith(digits):
        _say(f"[Warning] {url} is not of the sha256 that its name may state, {digits}")


def _download(source: Source, place: Place, caches: CacheVariables) -> Path:
    instead = f"or fetch it on another machine: put it here as {place.path}, or give its path"
    on_hub = hub_file(source.url, caches)
    if on_hub:
        if caches.offline:
            raise DownloadError(
                f"{source.name} is not in the cache {caches.hub} and HF_HUB_OFFLINE forbids to "
                "fetch it: unset that, or give a file's path"
            )
        repository, revision, name = on_hub
        root = caches.hub_mirror or HUB
        source = replace(source, url=f"{root}/{repository}/resolve/{revision}/{name}")
        instead = f"let HF_ENDPOINT be the address of a mirror, {instead}"
    return download(replace(source, instead=instead), place, say=_say)


def _say(line: str) -> None:
    say(line, file=sys.stderr)
