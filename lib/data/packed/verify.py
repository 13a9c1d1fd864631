"""Whether the files of a packed data set are still what its index says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from lib.data.packed.reading import FileSum, read_index
from lib.data.packed.storage import StorageError, Store, open_store

_STEP = 8 << 20


def damaged_files(root: Path | str) -> tuple[dict[str, str], int]:
    """Return {file: what is wrong with it}, and how many files were looked at.

    Args:
        root: the folder or the address of a packed data set.

    Raises:
        StorageError: there is no index.
        ValueError: the index is damaged.
    """
    store = open_store(root)
    files = read_index(store).files
    wrong = {}
    total = sum(file.num_bytes for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as progress:
        for file in files:
            try:
                whole = hashlib.sha256()
                for part in _parts(store, file):
                    whole.update(part)
                    progress.update(len(part))
                if whole.hexdigest() != file.sha256:
                    wrong[file.name] = "its SHA-256 sum is another one"
            except StorageError as error:
                wrong[file.name] = str(error)
    return wrong, len(files)


def _parts(store: Store, file: FileSum) -> Iterator[bytes]:
    for offset in range(0, file.num_bytes, _STEP):
        length = min(_STEP, file.num_bytes - offset)
        yield store.part(file.name, offset, length, size=file.num_bytes)
