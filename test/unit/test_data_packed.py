"""reading: an epoch over shards is the epoch over class folders, picture by picture."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from range_server import serving
from torch.utils.data import DataLoader

from lib.config.recipe import Recipe
from lib.data.build import read_train_val, read_val
from lib.data.decoding import has_fast_decoder
from lib.data.image_list import ImageList
from lib.data.loading import Batch, LoaderOptions, eval_loader, train_loader
from lib.data.packed import storage
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.data.packed.storage import StorageError

NUM_TRAIN, NUM_VAL = 27, 11
RECIPE = Recipe.for_crop(32)
OPTIONS = LoaderOptions(batch_size=4, image_size=32, seed=3)
DECODERS = ["pillow", *(["fast"] if has_fast_decoder() else [])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of JPEG pictures, and one file that is cut short."""
    root = tmp_path_factory.mktemp("folders")
    for number in range(NUM_TRAIN + NUM_VAL):
        part = "train" if number < NUM_TRAIN else "val"
        path = root / part / f"c{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((60, 50)).save(path)
    bad = root / "train" / "c0" / "12.jpg"
    bad.write_bytes(bad.read_bytes()[:500])
    return root


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of a few pictures."""
    out = tmp_path_factory.mktemp("packed") / "out"
    pack(folder, out, PackOptions(shard_mb=0.02, num_workers=1))
    assert len(list((out / "train").glob("*.tar"))) > 3
    return out


def read(root: Path | str) -> tuple[ImageList, ImageList]:
    return read_train_val(root, train_set="train", val_set="val")


def loader(images: ImageList, options: LoaderOptions, decoder: str = "pillow") -> DataLoader:
    return train_loader(
        images, options, scale=(0.3, 1.0), ratio=(0.75, 1.33), hflip=0.5, decoder=decoder
    )


def epoch(
    images: ImageList, options: LoaderOptions, *, number: int = 1, start: int = 0, **kinds: str
) -> list[Batch]:
    batches = loader(images, options, **kinds)
    batches.batch_sampler.epoch, batches.batch_sampler.start_step = number, start
    return list(batches)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    """Equal pictures to the bit, equal classes, and the same files bad."""
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert [b.path.split("/")[-1][-6:] for b in one.bad] == [
            b.path.split("/")[-1][-6:] for b in other.bad
        ]


def with_numbers(images: ImageList) -> ImageList:
    """The same pictures, each of a class of its own: a batch then tells which it has."""
    return replace(images, targets=list(range(len(images))))


@pytest.mark.parametrize("source", ["disk", "http"])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_an_epoch_sees_every_picture_exactly_once(
    packed: Path, source: str, num_workers: int, world_size: int
) -> None:
    with serving(packed) as server:
        train, val = map(with_numbers, read(packed if source == "disk" else server.url))
        bad = next(i for i, path in enumerate(train.paths) if path.endswith("_12.jpg"))
        seen, bad_paths, evaluated = Counter(), Counter(), Counter()
        for rank in range(world_size):
            options = replace(OPTIONS, num_workers=num_workers, rank=rank, world_size=world_size)
            for batch in epoch(train, options):
                seen.update(batch.targets.tolist())
                bad_paths.update(image.path for image in batch.bad)
            for batch in eval_loader(val, options, RECIPE):
                evaluated.update(batch.targets.tolist())
    assert set(seen) | {bad} == set(range(NUM_TRAIN))
    assert set(bad_paths) == {train.paths[bad]}
    # A stand-in for each time that the bad one came, and world_size - 1 pictures for equal shares.
    num_asked = NUM_TRAIN + -NUM_TRAIN % world_size
    assert seen.total() == num_asked
    assert sum(n - 1 for n in seen.values()) == bad_paths.total() + num_asked - NUM_TRAIN
    assert evaluated == Counter(range(NUM_VAL))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("num_workers", [0, 3])
def test_the_batches_are_those_of_the_class_folders_bit_for_bit(
    folder: Path, packed: Path, num_workers: int, decoder: str
) -> None:
    for theirs, ours in zip(read(folder), read(packed), strict=True):
        assert list(ours.targets) == list(theirs.targets)
        assert ours.class_names == theirs.class_names
    theirs, ours = (read(root)[0] for root in (folder, packed))
    options = replace(OPTIONS, num_workers=num_workers)
    for number in range(2):
        assert_equal(
            epoch(theirs, OPTIONS, number=number, decoder=decoder),
            epoch(ours, options, number=number, decoder=decoder),
        )
    for batch, expected in zip(
        eval_loader(read(packed)[1], options, RECIPE),
        eval_loader(read(folder)[1], OPTIONS, RECIPE),
        strict=True,
    ):
        assert torch.equal(batch.images, expected.images)


@pytest.mark.parametrize("source", ["disk", "http"])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resume_in_the_middle_gives_the_rest_that_class_folders_give(
    folder: Path, packed: Path, source: str, num_workers: int, world_size: int
) -> None:
    """Pitfall 13."""
    with serving(packed) as server:
        ours = read(packed if source == "disk" else server.url)[0]
        for rank in range(world_size):
            alone = replace(OPTIONS, rank=rank, world_size=world_size)
            whole = epoch(read(folder)[0], alone)
            rest = epoch(ours, replace(alone, num_workers=num_workers), start=2)
            assert_equal(whole[2:], rest)


def test_batches_are_the_same_from_a_spawned_worker(packed: Path) -> None:
    images = read(packed)[0]
    spawned = loader(images, replace(OPTIONS, num_workers=1))
    spawned.multiprocessing_context = "spawn"
    spawned.batch_sampler.epoch = 1
    assert_equal(epoch(images, OPTIONS), list(spawned))


def test_a_bad_picture_is_named_by_shard_and_key_and_its_reason_has_no_address(
    packed: Path, tmp_path: Path
) -> None:
    train = read(packed)[0]
    [bad] = {image for batch in epoch(train, OPTIONS) for image in batch.bad}
    assert bad.path.startswith("train/00000") and bad.path.endswith(".tar/00000001_12.jpg")
    (tmp_path / "val" / "c").mkdir(parents=True)
    (tmp_path / "val" / "c" / "a.jpg").write_bytes(b"no picture")
    pack(tmp_path, tmp_path / "out", PackOptions(num_workers=1))
    val = read_val(tmp_path / "out", val_set="val", class_names=None, num_classes=1)
    [batch] = eval_loader(val, OPTIONS, RECIPE)
    assert "cannot identify image file 10 bytes" in batch.bad[0].reason


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_is_damaged_on_the_way_ends_the_epoch_in_one_line(
    packed: Path, tmp_path: Path, num_workers: int
) -> None:
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    train = read(out)[0]
    train.contents._store._open.clear()  # as in a process that has not read yet
    (out / "train" / "000001.tar").write_bytes(b"half")
    with pytest.raises(StorageError) as caught:
        epoch(train, replace(OPTIONS, num_workers=num_workers))
    message = str(caught.value)
    assert message.startswith(f"{out}/train/000001.tar has 4 bytes and the index says")
    assert "\n" not in message


def test_a_server_that_goes_away_ends_the_epoch_with_the_address(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_WAITS_S", (0.0,))
    with serving(packed) as server:
        train = pickle.loads(pickle.dumps(read(server.url)[0]))  # without its open connection
    with pytest.raises(StorageError, match=r"http://127.0.0.1:\d+/train/00000\d.tar can't be read"):
        epoch(train, replace(OPTIONS, num_workers=1))


@pytest.mark.parametrize("damage", ["shard cut", "shard gone", "list", "index", "kind", "part"])
def test_what_is_wrong_with_the_files_is_told_before_anything_begins(
    packed: Path, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    index = json.loads((out / "index.json").read_text())
    last = out / "train" / sorted(path.name for path in (out / "train").glob("*.tar"))[-1]
    if damage == "shard cut":
        last.write_bytes(last.read_bytes()[:-1])
    elif damage == "shard gone":
        last.unlink()
    elif damage == "list":
        (out / "train" / "pictures.npz").write_bytes(b"none")
    elif damage == "index":
        (out / "index.json").write_text('{"kind": "packed')
    elif damage == "kind":
        (out / "index.json").write_text(json.dumps({**index, "format": 2}))
    else:
        del index["parts"]["train"]
        (out / "index.json").write_text(json.dumps(index))
    pattern = {
        "shard cut": f"{last} has .* bytes and the index says",
        "shard gone": f"{last} can't be read: No such file",
        "list": "train/pictures.npz is not the file that index.json tells of",
        "index": "index.json is damaged or no JSON",
        "kind": "index.json: format is 2, and 1 is needed",
        "part": "index.json has no part 'train'; its parts: val",
    }[damage]
    with pytest.raises((StorageError, ValueError), match=pattern) as caught:
        read(out)
    assert "\n" not in str(caught.value)


def set_at(content: object, place: tuple[str | int, ...], value: object) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("parts",), []),
        (("parts", "val", "class_names"), [1, 2, 3]),
        (("parts", "val", "class_names"), "abc"),
        (("parts", "val", "class_names"), ["c1", "c1", "c2"]),
        (("parts", "val", "shards"), None),
        (("parts", "val", "shards", 0, "num_bytes"), "8"),
        (("parts", "val", "shards", 0, "num_bytes"), -1),
        (("parts", "val", "shards", 0, "num_bytes"), 10**30),
        (("parts", "val", "pictures", "sha256"), None),
        (("parts", "val", "pictures", "name"), "/etc/passwd"),
        (("parts", "val", "pictures", "name"), "val/../../x"),
        (("parts", "val", "pictures", "num_images"), 10**12),
        (("parts", "val", "pictures", "num_images"), 0),
        (("parts", "val", "pictures", "name"), "a\n[Error] b"),
        (("recipe",), {}),
        (("recipe", "resize"), True),
    ],
)
def test_an_index_of_another_form_is_refused_in_one_line(
    packed: Path, tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    """Fault R6."""
    index = json.loads((packed / "index.json").read_text())
    set_at(index, place, value)
    shutil.copytree(packed, tmp_path / "out")
    (tmp_path / "out" / "index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, StorageError)) as caught:
        read_val(tmp_path / "out", val_set="val", class_names=None, num_classes=3)
    assert str(caught.value).startswith(str(tmp_path / "out")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shards", lambda array: array + 1000),
        ("offsets", lambda array: array * 1000),
        ("offsets", lambda array: array - 10**6),
        ("lengths", lambda array: array * 0 + 2**62),
        ("lengths", lambda array: array.astype(np.float32)),
        ("targets", lambda array: array + 3),
        ("targets", lambda array: array[:-1]),
        ("targets", lambda array: array[None]),
        ("name_ends", lambda array: array[::-1]),
        ("characters", lambda array: array[:-1]),
        ("characters", lambda array: array + 128),
        ("characters", lambda array: np.array(["a"] * len(array))),
        ("characters", None),
    ],
)
def test_a_table_of_pictures_of_another_form_is_refused_in_one_line(
    packed: Path, tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray] | None
) -> None:
    """Fault R6."""
    with np.load(packed / "val" / "pictures.npz") as arrays:
        arrays = dict(arrays)
    array = arrays.pop(name)
    if change is not None:
        arrays[name] = change(array)
    shutil.copytree(packed, tmp_path / "out")
    np.savez_compressed(tmp_path / "out" / "val" / "pictures.npz", **arrays)
    content = (tmp_path / "out" / "val" / "pictures.npz").read_bytes()
    index = json.loads((packed / "index.json").read_text())
    index["parts"]["val"]["pictures"] |= {
        "sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content),
    }  # fmt: skip
    (tmp_path / "out" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="pictures.npz") as caught:
        read_val(tmp_path / "out", val_set="val", class_names=None, num_classes=3)
    assert "\n" not in str(caught.value)


def write_flat(root: Path, labels: list[int]) -> None:
    (root / "val").mkdir(parents=True)
    for number in range(len(labels)):
        Image.new("RGB", (40, 40)).save(root / "val" / f"{number}.png")
    lines = [f"{number}.png {label}\n" for number, label in enumerate(labels)]
    (root / "val_label.txt").write_text("".join(lines))


def test_a_flat_val_is_evaluated_as_the_folder_is(folder: Path, tmp_path: Path) -> None:
    """Pitfall 22."""
    root, out = tmp_path / "flat", tmp_path / "out"
    shutil.copytree(folder / "train", root / "train")
    write_flat(root, [2, 0, 1])
    pack(root, out, PackOptions(num_workers=1))
    train, val = read(out)
    assert val.targets == [2, 0, 1] and val.class_names == train.class_names
    for names, count in ((("x", "y", "z"), None), (None, 3)):
        ours, theirs = (
            read_val(place, val_set="val", class_names=names, num_classes=count)
            for place in (out, root)
        )
        assert (ours.targets, ours.class_names) == (list(theirs.targets), theirs.class_names)
    with pytest.raises(ValueError, match=r"class 2, which is outside 0\.\.1"):
        read_val(out, val_set="val", class_names=None, num_classes=2)
    with pytest.raises(ValueError, match="give the number of classes"):
        read_val(out, val_set="val", class_names=None, num_classes=None)


def test_known_class_names_place_the_classes_of_a_subset(folder: Path, packed: Path) -> None:
    known = ("c2", "other", "c0", "c1")
    ours, theirs = (
        read_val(root, val_set="val", class_names=known, num_classes=4) for root in (packed, folder)
    )
    assert (ours.targets, ours.class_names) == (list(theirs.targets), known)
    with pytest.raises(ValueError, match="1 class folders that the network wasn't trained on: 'c"):
        read_val(packed, val_set="val", class_names=("c0", "c1"), num_classes=2)
    with pytest.raises(ValueError, match="has 3 class folders and the network 5 outputs"):
        read_val(packed, val_set="val", class_names=None, num_classes=5)


def test_a_val_of_its_own_cannot_be_trained_on(tmp_path: Path) -> None:
    write_flat(tmp_path / "flat", [0, 1])
    (tmp_path / "flat" / "val").rename(tmp_path / "flat" / "train")
    pack(tmp_path / "flat", tmp_path / "out", PackOptions(num_workers=1))
    with pytest.raises(ValueError, match="classes have no names: to train, pack class folders"):
        read_train_val(tmp_path / "out", train_set="train", val_set="train")
