"""From what a user calls weights (a file, a name, an address) to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from lib.environment import CacheVariables, read_cache_variables
from lib.files import sha256_of
from lib.stores import is_url
from lib.weights.cache import HUB, Place, hash_in_name, hub_file, place_of
from lib.weights.download import download
from lib.weights.registry import ENTRIES, Entry, lookup, nearest
from lib.weights.transfer import DownloadError, Source


def find_weights(wanted: Path | str) -> Path:
    """Return the file of a path, of a name of the registry, or of an http(s) address.

    What isn't on this machine is downloaded into the cache; stderr says so.
    Raises FileNotFoundError for what is none of them (with the nearest names), OSError in one line
    where the download fails.
    """
    text = str(wanted)
    if Path(text).is_file():
        return Path(text)
    if is_url(text):
        _check_address(text)
        return _fetch(next((entry for entry in ENTRIES.values() if entry.url == text), text))
    entry = lookup(text)
    if entry is None:
        raise FileNotFoundError(
            f"no such weight file: {text}; it is no known name either, the nearest are "
            f"{', '.join(nearest(text))} (python tools/weights.py list shows all)"
        )
    return _fetch(entry)


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
    return None if Path(wanted).is_file() else lookup(str(wanted))


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
        return _download(Source(name, url, wanted.sha256), place, caches)
    path = _download(Source(name, url), place, caches)
    _warn_of_other_digits(path, url)
    return path


def _warn_of_other_digits(path: Path, url: str) -> None:
    """Say where a name looks as torch.hub's do and the file is another; anybody may name so."""
    digits = hash_in_name(url)
    if digits and not sha256_of(path).startswith(digits):
        _say(f"[Warning] {url} is not of the sha256 that its name may state, {digits}")


def _download(source: Source, place: Place, caches: CacheVariables) -> Path:
    on_hub = hub_file(source.url, caches)
    if on_hub:
        if caches.offline:
            raise DownloadError(
                f"{source.name} is not in the cache {caches.hub} and HF_HUB_OFFLINE forbids to "
                "fetch it: unset that, or give a file's path"
            )
        repository, revision, name = on_hub
        root = caches.hub_mirror or HUB
        source = Source(
            source.name, f"{root}/{repository}/resolve/{revision}/{name}", source.sha256
        )
    return download(source, place, say=_say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
