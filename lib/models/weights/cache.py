"""Where downloaded weights are kept: as huggingface_hub and torch.hub keep theirs.

So a file that timm, mmengine or torch has fetched is found here, and the other way round. Whatever
stands under a final name is whole: it is renamed, or linked, into place.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from lib.runtime.environment import CacheVariables
from lib.runtime.files import write_atomically

HUB = "https://huggingface.co"
_HUB_FILE = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/?#]+)/([^?#]+)")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # torch.hub's way: resnet18-f37072fd.pth


class Place(Protocol):
    """The place of one file in a cache."""

    @property
    def path(self) -> Path:
        """Where the whole file is looked for."""

    @property
    def part(self) -> Path:
        """Where the file grows, in the folder that it stays in."""

    def find(self) -> Path | None:
        """Return the whole file, if it is there."""

    def keep(self, sha256: str, commit: str) -> Path:
        """Make the part, whose hash and revision are given, the whole file; return that."""


class CheckpointPlace:
    """A file in torch.hub's folder of checkpoints."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name

    @property
    def path(self) -> Path:
        return self._path

    @property
    def part(self) -> Path:
        return self._path.with_name(f".{self._path.name}.part")

    def find(self) -> Path | None:
        return self._path if self._path.is_file() else None

    def keep(self, sha256: str, commit: str) -> Path:
        os.replace(self.part, self._path)
        return self._path


class HubPlace:
    """A file in huggingface_hub's cache: blobs by hash, and snapshots of links to them."""

    def __init__(self, cache: Path, repository: str, *, revision: str, name: str) -> None:
        self._root = cache / f"models--{repository.replace('/', '--')}"
        self._revision, self._name = revision, name

    @property
    def part(self) -> Path:
        return self._root / "blobs" / f".{self._revision}.{self._name.replace('/', '--')}.part"

    @property
    def path(self) -> Path:
        return self._root / "snapshots" / (self._commit() or self._revision) / self._name

    def find(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def _commit(self) -> str:
        """Return the commit that the revision stands for here; '' where none is known."""
        reference = self._root / "refs" / self._revision
        return reference.read_text().strip() if reference.is_file() else ""

    def keep(self, sha256: str, commit: str) -> Path:
        # A mirror may not say which revision it sends; what huggingface_hub knows stays as it is.
        commit = commit or self._commit() or sha256[:40]
        blob = self.part.with_name(sha256)
        os.replace(self.part, blob)
        path = self._root / "snapshots" / commit / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        link = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            os.symlink(os.path.relpath(blob, path.parent), link)
        except OSError:  # a file system without links: as huggingface_hub does there
            os.replace(blob, link)
        os.replace(link, path)
        reference = self._root / "refs" / self._revision
        if commit != self._revision:
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(commit.encode(), reference)
        return path


def place_of(url: str, caches: CacheVariables, *, is_known: bool) -> Place:
    """Return where the file of an address is kept.

    torch.hub names a file as its address ends. Where the registry doesn't know the address, the
    file is told apart from others' `model.pth` by its address's hash.
    """
    repository = hub_file(url, caches)
    if repository:
        return HubPlace(caches.hub, repository[0], revision=repository[1], name=repository[2])
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "weights"
    if not is_known:
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{name}"
    return CheckpointPlace(caches.checkpoints, name)


def hub_file(url: str, caches: CacheVariables) -> tuple[str, str, str] | None:
    """Return (repository, revision, file) of an address on the Hugging Face hub or its mirror."""
    for root in (HUB, caches.hub_mirror):
        if root and url.startswith(f"{root}/"):
            match = _HUB_FILE.match(url[len(root) :])
            if match:
                return match[1], match[2], unquote(match[3])
    return None


def hash_in_name(url: str) -> str:
    """Return what may be the first digits of a file's sha256 in its name; '' where nothing may.

    Decimal digits alone are rather a date.
    """
    match = _HASH_IN_NAME.search(urlsplit(url).path.rpartition("/")[2])
    return match[1] if match and not match[1].isdecimal() else ""
