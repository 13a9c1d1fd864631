"""A shard: a tar file of which every byte follows from what is put in."""

from __future__ import annotations

import hashlib
import tarfile
from io import FileIO

from lib.runtime.files import write_whole

_END_BLOCKS = 2


class ShardWriter:
    """Adds members to a tar file, and knows where each one lies and the sum of all bytes.

    Members have no owner and no time, so the same contents give the same file.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.num_bytes = 0  # so far

    def add(self, name: str, content: bytes) -> int:
        """Add a member with an ASCII name of up to 100 characters; return where its bytes begin."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii"))
        offset = self.num_bytes
        self._write(content)
        self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def end(self) -> str:
        """Write what ends a tar file; return the SHA-256 sum of all of it."""
        self._write(bytes(_END_BLOCKS * tarfile.BLOCKSIZE))
        self._write(bytes(-self.num_bytes % tarfile.RECORDSIZE))
        return self._sum.hexdigest()

    def _write(self, data: bytes) -> None:
        write_whole(self._file, data)
        self._sum.update(data)
        self.num_bytes += len(data)


def size_with(num_bytes: int, *contents: bytes) -> int:
    """Return the size of a whole file that has `num_bytes` of members so far and gets these too."""
    blocks = sum(1 + -(-len(content) // tarfile.BLOCKSIZE) for content in contents) + _END_BLOCKS
    num_bytes += blocks * tarfile.BLOCKSIZE
    return num_bytes + -num_bytes % tarfile.RECORDSIZE
