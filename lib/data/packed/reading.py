"""A packed data set: pictures in tar shards, and an index that says where each one lies.

    OUT/index.json              the parts, their classes and shards with sizes and SHA-256 sums
    OUT/train/pictures.npz      for each picture: shard, first byte, length, class, name
    OUT/train/000000.tar, ...   WebDataset's layout: <key>.jpg and <key>.cls, the class's number
    OUT/val/...                 the same

The index makes a picture as easy to reach as a file is. So order, shards of ranks, epochs and
resumes are those of class folders: a packed data set is a list of pictures like any other. The
pictures come in the order in which class folders are listed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from lib.config.recipe import ORIENTATIONS
from lib.data.image_list import ImageList, names_to_evaluate, require_same_classes
from lib.data.packed.storage import StorageError, Store, open_store
from lib.data.rgb import EXIF, IGNORE
from lib.runtime.arrays import ArrayForms, read_arrays, texts_of
from lib.runtime.checked import COUNT, parse_json, shown
from lib.runtime.files import is_url

INDEX = "index.json"
PROGRESS = ".packing"  # the folder that tells how far a packing has come
PICTURES = "pictures.npz"
KIND, FORMAT = "packed pictures", 1
_MAX_INDEX_BYTES, _MAX_TABLE_BYTES = 2**28, 2**32  # a million shards, a hundred million pictures
FILE_FORM = {"name": str, "num_bytes": COUNT, "sha256": str, "num_images": COUNT}
_PICTURES_FORM = {**FILE_FORM, "num_images": COUNT[1:]}
_PART = {"class_names": (None, [str]), "pictures": _PICTURES_FORM, "shards": [FILE_FORM]}
_INDEX = {
    "kind": KIND,
    "format": range(FORMAT, FORMAT + 1),
    "recipe": {"resize": (None, COUNT), "quality": (None, COUNT), "orientation?": ORIENTATIONS},
    "parts": {str: _PART},
}
_TABLE: ArrayForms = {
    "shards": ("iu", ("N",)),
    "offsets": ("iu", ("N",)),
    "lengths": ("iu", ("N",)),
    "targets": ("iu", ("N",)),
    "name_ends": ("iu", ("N",)),
    "characters": ("u", ("c",)),
}


@dataclass(frozen=True)
class FileSum:
    """A file of a packed data set and what it must be."""

    name: str  # below the data set's root
    num_bytes: int
    sha256: str
    num_images: int


@dataclass(frozen=True)
class PartIndex:
    """One part (train, val) of a packed data set, as the index tells of it."""

    class_names: tuple[str, ...] | None  # None: a flat part, whose classes are numbers
    pictures: FileSum
    shards: tuple[FileSum, ...]


@dataclass(frozen=True)
class Index:
    """What a packed data set holds, and how it was made."""

    recipe: Mapping[str, object]
    parts: Mapping[str, PartIndex]

    @property
    def files(self) -> tuple[FileSum, ...]:
        """Every file but the index itself."""
        return tuple(file for part in self.parts.values() for file in (part.pictures, *part.shards))


@dataclass(frozen=True)
class Places:
    """Where the pictures of a part lie: five arrays, one entry a picture, but for the characters.

    Forked workers share their memory, which they would not do for lists.
    """

    shards: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    name_ends: npt.NDArray[np.int64]
    characters: npt.NDArray[np.uint8]  # of the names within the shards, one after the other

    def paths(self, shards: tuple[FileSum, ...]) -> list[str]:
        """Return `<shard>/<name in it>` for each picture."""
        names = texts_of(self.characters.tobytes(), self.name_ends, where=PICTURES)
        pairs = zip(self.shards.tolist(), names, strict=True)
        return [f"{shards[shard].name}/{name.decode('ascii')}" for shard, name in pairs]


class PackedContents:
    """Pictures in shards, each read when it is asked for."""

    def __init__(
        self, store: Store, part: PartIndex, places: Places, *, recipe: Mapping[str, object]
    ) -> None:
        self.recipe = describe(recipe)
        self.orientation = _orientation(recipe)
        self._store = store
        self._shards = part.shards
        self._places = places

    def read(self, index: int) -> bytes:
        """Return what the file of picture `index` held. Raises StorageError."""
        places = self._places
        shard = self._shards[places.shards[index]]
        offset, length = int(places.offsets[index]), int(places.lengths[index])
        return self._store.part(shard.name, offset, length, size=shard.num_bytes)


def is_packed(root: Path | str) -> bool:
    """Return True where `root` holds a packed data set, as every address has to.

    Raises ValueError where the packing hasn't come to its end.
    """
    if is_url(root) or (Path(root) / INDEX).is_file():
        return True
    if (Path(root) / PROGRESS).is_dir():
        raise ValueError(
            f"the packing into {root} has not come to its end: run the same "
            "tools/pack_dataset.py command once more, which goes on where it stopped"
        )
    return False


def files_of(root: Path | str) -> tuple[Path, ...]:
    """Return the files of a packed data set in a folder; none of one at an address."""
    return () if is_url(root) else tuple(path for path in Path(root).rglob("*") if path.is_file())


def read_train_val(
    root: Path | str, *, train_set: str, val_set: str
) -> tuple[ImageList, ImageList]:
    """The pictures to train on and to validate with; see `lib.data.image_list.read_train_val`.

    Raises:
        StorageError: a file is missing, or isn't the one that the index tells of.
        ValueError: no such part, classes that differ, or another kind of index.
    """
    store = open_store(root)
    index = read_index(store)
    train, val = (_part(store, index, name) for name in (train_set, val_set))
    if train.class_names is None:
        raise ValueError(
            f"{store.where(train_set)} was packed from a flat folder, and its classes have no "
            "names: to train, pack class folders"
        )
    if val.class_names is not None:
        require_same_classes(
            store.where(train_set), train.class_names, store.where(val_set), val.class_names
        )
    names = train.class_names
    return (
        _images(store, index, train_set, found=names, names=names),
        _images(store, index, val_set, found=val.class_names, names=names),
    )


def read_val(
    root: Path | str, *, val_set: str, class_names: tuple[str, ...] | None, num_classes: int | None
) -> ImageList:
    """The pictures to evaluate with; arguments and errors as `lib.data.image_list.read_val`.

    Raises:
        StorageError: a file is missing, or isn't the one that the index tells of.
    """
    store = open_store(root)
    index = read_index(store)
    found = _part(store, index, val_set).class_names
    names = names_to_evaluate(
        store.where(val_set), found, class_names=class_names, num_classes=num_classes
    )
    return _images(store, index, val_set, found=found, names=names)


def read_index(store: Store) -> Index:
    """Return the index of a packed data set.

    Raises StorageError where there is none, ValueError where it is damaged or of another kind.
    """
    where = store.where(INDEX)
    content = parse_json(store.whole(INDEX, most=_MAX_INDEX_BYTES), _INDEX, where=where)
    index = Index(
        content["recipe"], {name: _parsed(part) for name, part in content["parts"].items()}
    )
    for file in index.files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or "\0" in file.name or not path.name:
            raise ValueError(f"{where}: {shown(file.name)} is no file of this data set")
    for name, part in index.parts.items():
        names = part.class_names or ()
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: {name} has a class name twice: it is damaged or was edited")
    return index


def index_content(index: Index) -> dict[str, object]:
    """Return what `read_index` reads, for JSON."""
    parts = {
        name: {
            "class_names": part.class_names,
            "num_images": part.pictures.num_images,
            "pictures": vars(part.pictures),
            "shards": [vars(shard) for shard in part.shards],
        }
        for name, part in index.parts.items()
    }
    return {"kind": KIND, "format": FORMAT, "recipe": dict(index.recipe), "parts": parts}


def places_content(places: Places) -> bytes:
    """Return what a part's `pictures.npz` holds."""
    file = io.BytesIO()
    np.savez_compressed(file, **vars(places))
    return file.getvalue()


def _parsed(part: dict) -> PartIndex:
    names = part["class_names"]
    return PartIndex(
        None if names is None else tuple(names),
        _file_sum(part["pictures"]),
        tuple(map(_file_sum, part["shards"])),
    )


def _file_sum(content: dict) -> FileSum:
    return FileSum(*(content[name] for name in FILE_FORM))


def _part(store: Store, index: Index, name: str) -> PartIndex:
    if name not in index.parts:
        raise ValueError(
            f"{store.where(INDEX)} has no part {name!r}; its parts: {', '.join(index.parts)}"
        )
    return index.parts[name]


def _images(
    store: Store,
    index: Index,
    name: str,
    *,
    found: tuple[str, ...] | None,
    names: tuple[str, ...],
) -> ImageList:
    """Return a part's pictures; those of the folders `found` get their places in `names`."""
    part = index.parts[name]
    places = _read_places(store, part)
    for shard in part.shards:  # one byte of each: what is missing is told before work begins
        store.part(shard.name, 0, 1, size=shard.num_bytes)
    targets = places.targets
    if found is not None and found != names:
        number = {class_name: target for target, class_name in enumerate(names)}
        targets = np.array([number[class_name] for class_name in found], np.int64)[targets]
    if targets.max(initial=0) >= len(names):
        raise ValueError(
            f"{store.where(name)} has pictures of class {targets.max()}, which is outside "
            f"0..{len(names) - 1}; classes are numbered from 0 in the sorted order of their names"
        )
    contents = PackedContents(store, part, places, recipe=index.recipe)
    return ImageList(places.paths(part.shards), targets.tolist(), names, contents)


def describe(recipe: Mapping[str, object]) -> str:
    """Return what was done to the pictures, in a few words."""
    if recipe["resize"] is None:
        return "as they were"
    upright = ", upright by EXIF" if _orientation(recipe) == EXIF else ""
    return f"short side {recipe['resize']}, quality {recipe['quality']}{upright}"


def _orientation(recipe: Mapping[str, object]) -> str | None:
    """Return what the pictures were opened with, as in `rgb`; None where they are as they were.

    An index that doesn't say is of the time before it could be asked for.
    """
    return None if recipe["resize"] is None else str(recipe.get("orientation", IGNORE))


def _read_places(store: Store, part: PartIndex) -> Places:
    file, where = part.pictures, store.where(part.pictures.name)
    content = store.whole(file.name, most=min(file.num_bytes, _MAX_TABLE_BYTES))
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise StorageError(
            f"{where} is not the file that {INDEX} tells of: it was damaged or "
            "replaced; pack the data set again"
        )
    arrays = read_arrays(io.BytesIO(content), _TABLE, where=where, lengths={"N": file.num_images})
    shards, offsets, lengths, targets, ends = numbers = tuple(
        arrays[name].astype(np.int64) for name in _TABLE if name != "characters"
    )
    characters = arrays["characters"].astype(np.uint8)
    places = Places(shards, offsets, lengths, targets, ends, characters)
    sizes = np.array([shard.num_bytes for shard in part.shards], np.int64)
    num_classes = np.inf if part.class_names is None else len(part.class_names)
    if (
        min(int(array.min(initial=0)) for array in numbers) < 0
        or places.shards.max(initial=-1) >= len(sizes)
        or places.targets.max(initial=-1) >= num_classes
        or (places.lengths > sizes[places.shards] - places.offsets).any()
        or (arrays["characters"] > 127).any()
    ):
        raise ValueError(f"{where} tells of shards, bytes or classes that {INDEX} does not have")
    return places
