"""Packing a data set: from class folders to shards and their index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lib.data.bad_images import in_one_line
from lib.data.image_list import ImageList, read_split, require_same_classes
from lib.data.packed import reading
from lib.data.packed.options import PackOptions
from lib.data.packed.pictures import Packed, Picture, prepare
from lib.data.packed.reading import FileSum, Index, PartIndex, Places
from lib.data.packed.record import Record, Sample, ShardRecord, fingerprint
from lib.data.packed.tar import ShardWriter, size_with
from lib.data.picture_files import LeftOut
from lib.runtime import run_folder
from lib.runtime.environment import num_cores
from lib.runtime.files import open_atomically, write_atomically, write_json
from lib.runtime.pool import run_in_processes
from lib.runtime.signals import deferred_signals

_PICTURES_A_JOB = 16
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class PackReport:
    """What a packed data set holds now."""

    index: Index
    failed: Mapping[str, str]  # path: why it can't be read; left out
    num_kept: Mapping[str, int]  # by part: shards that an earlier run had finished
    left_out: LeftOut  # of the folders that were packed


def pack(source: Path, target: Path, options: PackOptions) -> PackReport:
    """Pack the class folders (or the flat val) of `source` into `target`.

    Finished shards of the same pictures and options are kept, so a stopped packing goes on where
    it was; the same pictures and options give the same shards to the byte. Pictures that can't be
    read are left out, and listed in `bad_images.tsv`.

    Raises:
        FileNotFoundError, ValueError: a mistake in the layout of `source`, or a target that holds
            something else.
        PartlyFailed: a process was killed.
        Stopped, KeyboardInterrupt: the work was stopped.
        OSError: the target can't be written.
    """
    _check_target(source, target, options.parts)
    parts = _read_parts(source, options.parts)
    with run_folder.lock(target), deferred_signals() as check:
        record = Record(target)
        record.claim(options.recipe)
        pictures = {name: _pictures(images) for name, images in parts.items()}
        kept = {name: record.finished(name, pictures[name]) for name in parts}
        # From here to the end there is no index: nobody trains on a mixture.
        (target / reading.INDEX).unlink(missing_ok=True)
        record.drop_parts_but(list(parts))
        shards: dict[str, list[ShardRecord]] = {}
        for name in parts:
            record.drop_from(name, len(kept[name]))
            rest = _write_rest(
                record, name, pictures[name], kept[name], options=options, check=check
            )
            shards[name] = [*kept[name], *rest]
        report = _finish(target, source, parts, shards, options)
    num_kept = {name: len(there) for name, there in kept.items()}
    left_out = LeftOut.whole([images.left_out for images in parts.values()])
    return PackReport(*report, num_kept, left_out)


def _check_target(source: Path, target: Path, parts: tuple[str, ...]) -> None:
    inside = target.resolve()
    for folder in (source, *(source / name for name in parts)):
        whole = folder.resolve()
        if inside == whole or (folder != source and whole in inside.parents):
            raise ValueError(f"{target} is, or lies in, a folder to pack: give one beside it")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is not a folder: give one for the shards")


def _read_parts(source: Path, names: tuple[str, ...]) -> dict[str, ImageList]:
    if reading.is_packed(source):
        raise ValueError(f"{source} is packed already: give the class folders it was made of")
    there = [name for name in names if (source / name).is_dir()]
    if not there:
        raise FileNotFoundError(
            f"{source} has none of the folders {', '.join(names)}: give the one that holds them"
        )
    parts = {name: read_split(source, name) for name in there}
    first, last = there[0], there[-1]
    names, others = parts[first].class_names, parts[last].class_names
    if names and others:
        require_same_classes(source / first, names, source / last, others)
    largest = max(parts[last].targets)
    if names and largest >= len(names):
        raise ValueError(
            f"{source / last} has pictures of class {largest}, which is outside "
            f"0..{len(names) - 1}; classes are numbered from 0 in the sorted order of their names"
        )
    return parts


def _pictures(images: ImageList) -> list[Picture]:
    pictures = []
    for number, (path, target) in enumerate(zip(images.paths, images.targets, strict=True)):
        try:
            stat = os.stat(path)
            pictures.append(Picture(path, number, target, stat.st_size, stat.st_mtime_ns))
        except OSError:  # a link that leads nowhere: reading it tells why
            pictures.append(Picture(path, number, target, 0, 0))
    return pictures


def _first_left(finished: list[ShardRecord]) -> int:
    return finished[-1].end if finished else 0


def _write_rest(
    record: Record,
    part: str,
    pictures: list[Picture],
    finished: list[ShardRecord],
    *,
    options: PackOptions,
    check: Callable[[], None],
) -> list[ShardRecord]:
    """Write the shards behind the finished ones, and record each."""
    first = _first_left(finished)
    if (record.root / part).is_symlink():
        raise ValueError(f"{record.root / part} is a link, which is not followed: remove it")
    (record.root / part).mkdir(exist_ok=True)
    starts = range(first, len(pictures), _PICTURES_A_JOB)
    done = run_in_processes(
        partial(
            prepare,
            resize=options.resize,
            quality=options.quality,
            orientation=options.orientation,
        ),
        (pictures[start : start + _PICTURES_A_JOB] for start in starts),
        num_workers=max(1, min(options.num_workers or num_cores(), len(starts))),
        check=check,
        in_order=True,
    )
    shards: list[ShardRecord] = []
    # disable=None: a bar on terminals only.
    with (
        closing(done),
        tqdm(
            desc=part, total=len(pictures), initial=first, unit="picture", disable=None
        ) as progress,
    ):
        coming = _counted(chain.from_iterable(done), progress)
        ahead = next(coming, None)
        while ahead is not None:
            number = len(finished) + len(shards)
            shard, ahead = _write_shard(
                record,
                part,
                number=number,
                first=ahead,
                coming=coming,
                pictures=pictures,
                options=options,
            )
            shards.append(shard)
    return shards


def _counted(coming: Iterator[Packed], progress: tqdm) -> Iterator[Packed]:
    for item in coming:
        progress.update()
        yield item


def _write_shard(
    record: Record,
    part: str,
    *,
    number: int,
    first: Packed,
    coming: Iterator[Packed],
    pictures: list[Picture],
    options: PackOptions,
) -> tuple[ShardRecord, Packed | None]:
    """Write a shard of `first` and what comes; return it, and what no longer went in.

    Raises ValueError where there is a file of its name already, which isn't of this packing.
    """
    name = f"{part}/{number:06}.tar"
    if os.path.lexists(record.root / name):
        raise ValueError(f"{record.root / name} is not of this packing: move it elsewhere")
    samples: list[Sample] = []
    failed: dict[str, str] = {}
    ahead: Packed | None = first
    with open_atomically(record.root / name) as file:
        writer = ShardWriter(file)
        while ahead is not None:
            if ahead.failure:
                failed[ahead.picture.path] = ahead.failure
            else:
                label = str(ahead.picture.target).encode()
                size = size_with(writer.num_bytes, ahead.content, label)
                if samples and size > options.shard_mb * _MEGABYTE:
                    break
                samples.append(_add(writer, ahead, label))
            ahead = next(coming, None)
        sha256 = writer.end()
        end = len(pictures) if ahead is None else ahead.picture.number
        shard = ShardRecord(
            FileSum(name, writer.num_bytes, sha256, len(samples)),
            end,
            ahead is None,
            fingerprint(pictures[first.picture.number : end]),
            tuple(samples),
            failed,
        )
        record.add(part, number, shard)
    return shard, ahead


def _add(writer: ShardWriter, item: Packed, label: bytes) -> Sample:
    key = item.picture.key
    name = f"{key}.{item.ending}"
    offset = writer.add(name, item.content)
    writer.add(f"{key}.cls", label)
    return Sample(name, offset, len(item.content), item.picture.target)


def _finish(
    target: Path,
    source: Path,
    parts: Mapping[str, ImageList],
    shards: Mapping[str, list[ShardRecord]],
    options: PackOptions,
) -> tuple[Index, dict[str, str]]:
    """Write the index and the list of bad pictures; return both."""
    failed = {
        path: reason
        for records in shards.values()
        for record in records
        for path, reason in record.failed.items()
    }
    table = target / run_folder.BAD_IMAGES
    table.unlink(missing_ok=True)
    if failed:
        text = "".join(f"{in_one_line(path)}\t{reason}\n" for path, reason in failed.items())
        write_atomically(text.encode(errors="surrogateescape"), table)
    index = Index(
        {**options.recipe, "sources_sha256": _sum_of_lists(source, parts)},
        {name: _part_index(target, name, parts[name], shards[name]) for name in parts},
    )
    write_json(reading.index_content(index), target / reading.INDEX)
    return index, failed


def _part_index(
    target: Path, name: str, images: ImageList, records: list[ShardRecord]
) -> PartIndex:
    samples = [sample for record in records for sample in record.samples]
    if not samples:
        raise ValueError(f"none of the {len(images)} pictures of {name} can be read")
    names = [sample.name for sample in samples]
    counts = [record.file.num_images for record in records]
    places = Places(
        np.repeat(np.arange(len(records), dtype=np.int64), counts),
        np.array([sample.offset for sample in samples], np.int64),
        np.array([sample.num_bytes for sample in samples], np.int64),
        np.array([sample.target for sample in samples], np.int64),
        np.cumsum([len(text) for text in names], dtype=np.int64),
        np.frombuffer("".join(names).encode("ascii"), np.uint8),
    )
    content = reading.places_content(places)
    file_name = f"{name}/{reading.PICTURES}"
    write_atomically(content, target / file_name)
    whole = FileSum(file_name, len(content), hashlib.sha256(content).hexdigest(), len(samples))
    return PartIndex(images.class_names or None, whole, tuple(record.file for record in records))


def _sum_of_lists(source: Path, parts: Mapping[str, ImageList]) -> str:
    """Return a sum of the pictures' paths and classes: which data set it is."""
    whole = hashlib.sha256()
    for images in parts.values():
        for path, target in zip(images.paths, images.targets, strict=True):
            whole.update(f"{os.path.relpath(path, source)}\t{target}\n".encode(errors="replace"))
    return whole.hexdigest()
