"""lib/data: from files to batches and on to the device, whatever the workers and the files do."""

import multiprocessing
import pickle
import random
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision import transforms as reference
from torchvision.datasets import ImageFolder

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe, eval_resize
from lib.data.bad_images import BadImage
from lib.data.build import read_train_val, read_val
from lib.data.image_list import ImageList
from lib.data.loading import (
    Batch,
    ImageFiles,
    LoaderOptions,
    Sample,
    eval_loader,
    num_workers,
    train_loader,
)
from lib.data.normalize import Normalize
from lib.data.transforms import normalize

OPTIONS = LoaderOptions(batch_size=4, image_size=16, seed=5)


def write_images(folder: Path, num_images: int, *, bad: tuple[int, ...] = ()) -> ImageList:
    """Noisy pictures whose number is their class; those in `bad` are cut in the middle."""
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{number:02}.png") for number in range(num_images)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        if number in bad:
            Path(path).write_bytes(Path(path).read_bytes()[:600])
    return ImageList(paths, list(range(num_images)), tuple(map(str, range(num_images))))


def loader_to_train(images: ImageList, options: LoaderOptions = OPTIONS) -> DataLoader[Sample]:
    return train_loader(images, options, scale=(0.3, 1.0), ratio=(0.75, 1.33), hflip=0.5)


def loader_to_evaluate(images: ImageList, options: LoaderOptions = OPTIONS) -> DataLoader[Sample]:
    return eval_loader(images, options, Recipe.for_crop(options.image_size))


def epochs(loader: DataLoader[Sample], *, num_epochs: int = 2) -> list[Batch]:
    batches = []
    for epoch in range(num_epochs):
        loader.batch_sampler.epoch = epoch
        batches += list(loader)
    return batches


def assert_equal_batches(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert one.bad == other.bad


def test_batches_have_the_promised_shapes_and_types(tmp_path: Path) -> None:
    images = write_images(tmp_path, 6)
    for loader in (loader_to_train(images), loader_to_evaluate(images)):
        first, last = loader
        assert first.images.shape == (4, 16, 16, 3) and last.images.shape == (2, 16, 16, 3)
        assert first.images.dtype == torch.uint8 and first.images.is_contiguous()
        assert first.targets.shape == (4,) and first.targets.dtype == torch.int64
        assert first.bad == []


def test_training_batches_are_bit_equal_with_0_and_with_2_workers(tmp_path: Path) -> None:
    """Over two epochs, the second with the workers of the first, and with a bad picture."""
    images = write_images(tmp_path, 13, bad=(4,))
    alone = epochs(loader_to_train(images))
    assert sum(len(batch.bad) for batch in alone) >= 2
    assert_equal_batches(alone, epochs(loader_to_train(images, replace(OPTIONS, num_workers=2))))


def test_batches_are_bit_equal_from_a_spawned_worker(tmp_path: Path) -> None:
    images = write_images(tmp_path, 9, bad=(4,))
    loader = loader_to_train(images, replace(OPTIONS, num_workers=1))
    loader.multiprocessing_context = "spawn"
    assert_equal_batches(epochs(loader_to_train(images)), epochs(loader))


def test_a_restart_inside_an_epoch_gives_the_rest_of_its_batches(tmp_path: Path) -> None:
    """Pitfall 13: the pixels too, since augmentation depends on seed, epoch and picture alone."""
    images = write_images(tmp_path, 13)
    whole = epochs(loader_to_train(images), num_epochs=2)[4:]
    resumed = loader_to_train(images)
    resumed.batch_sampler.epoch, resumed.batch_sampler.start_step = 1, 2
    assert_equal_batches(whole[2:], list(resumed))


def test_augmentation_changes_with_the_epoch_and_the_run_seed(tmp_path: Path) -> None:
    images = write_images(tmp_path, 1)
    first, second = epochs(loader_to_train(images))
    [other_run] = epochs(loader_to_train(images, replace(OPTIONS, seed=6)), num_epochs=1)
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other_run.images)


def test_two_ranks_see_the_pixels_that_one_process_sees(tmp_path: Path) -> None:
    images = write_images(tmp_path, 8)
    ranks = [replace(OPTIONS, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    shards = [epochs(loader_to_train(images, options)) for options in ranks]
    for whole, *parts in zip(epochs(loader_to_train(images)), *shards, strict=True):
        targets = torch.cat([part.targets for part in parts])
        pixels = torch.cat([part.images for part in parts])
        assert torch.equal(pixels[targets.argsort()], whole.images[whole.targets.argsort()])


def test_iterating_leaves_the_global_random_generators_alone(tmp_path: Path) -> None:
    images = write_images(tmp_path, 5)
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    for workers in (0, 1):
        options = replace(OPTIONS, num_workers=workers)
        list(loader_to_train(images, options)) + list(loader_to_evaluate(images, options))
    assert torch.equal(torch.get_rng_state(), torch_state) and random.getstate() == python_state


def test_evaluation_pixels_are_torchvisions(class_photos: Path) -> None:
    train, val = read_train_val(class_photos, train_set="train", val_set="val")
    assert (len(train), len(val), val.num_classes) == (200, 100, 10)
    pipeline = reference.Compose(
        [
            reference.Resize(eval_resize(112)),
            reference.CenterCrop(112),
            reference.ToTensor(),
            reference.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    expected = ImageFolder(str(class_photos / "val"), pipeline)
    loader = eval_loader(val, LoaderOptions(30, 112), Recipe.for_crop(112))
    images = torch.cat([Normalize()(batch.images) for batch in loader])
    assert torch.equal(images, torch.stack([image for image, _ in expected]))
    assert torch.cat([batch.targets for batch in loader]).tolist() == expected.targets
    again = read_val(class_photos, val_set="val", class_names=train.class_names, num_classes=10)
    assert again == val


def test_training_takes_another_picture_for_a_bad_one(tmp_path: Path) -> None:
    images = write_images(tmp_path, 12, bad=(3, 8))
    batches = epochs(loader_to_train(images), num_epochs=1)
    assert [len(batch.images) for batch in batches] == [4, 4, 4]
    assert {image.path for batch in batches for image in batch.bad} == {
        images.paths[3],
        images.paths[8],
    }
    assert all("OSError: " in image.reason for batch in batches for image in batch.bad)
    targets = torch.cat([batch.targets for batch in batches]).tolist()
    assert set(targets) == set(range(12)) - {3, 8} and len(targets) == 12


def test_the_stand_in_for_a_bad_picture_is_drawn_anew_each_epoch(tmp_path: Path) -> None:
    loader = loader_to_train(write_images(tmp_path, 12, bad=(3,)), replace(OPTIONS, batch_size=12))
    batches = epochs(loader, num_epochs=8)
    good = set(range(12)) - {3}
    stand_ins = {sum(batch.targets.tolist()) - sum(good) for batch in batches}
    assert len(stand_ins) > 3 and stand_ins <= good


def test_training_gives_up_on_a_place_after_ten_more_bad_pictures(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2, bad=(0, 1))
    [batch] = loader_to_train(images)
    assert batch.images.shape == (0, 16, 16, 3) and len(batch.bad) == 22


def test_evaluation_leaves_bad_pictures_out(tmp_path: Path) -> None:
    images = write_images(tmp_path, 10, bad=(1, 4, 5, 6, 7))
    batches = list(loader_to_evaluate(images))
    assert [batch.targets.tolist() for batch in batches] == [[0, 2, 3], [], [8, 9]]
    assert batches[1].images.shape == (0, 16, 16, 3)
    assert [len(batch.bad) for batch in batches] == [1, 4, 0]
    assert Normalize()(batches[1].images).shape == (0, 3, 16, 16)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_kind_of_bad_file_becomes_a_one_line_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path, 6)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    Path(images.paths[0]).write_bytes(b"")
    Path(images.paths[1]).unlink()
    Path(images.paths[2]).write_bytes(header)
    Path(images.paths[3]).write_bytes(b"P6\n4 many\n255\n")
    Image.new("RGB", (40, 30)).save(images.paths[4])
    Image.new("RGB", (1, 400)).save(images.paths[5])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr("lib.data.transforms.MAX_RESIZED_PIXELS", 18 * 500)
    bad = [image for batch in loader_to_evaluate(images) for image in batch.bad]
    assert [image.path for image in bad] == list(images.paths)
    assert "DecompressionBombError" in bad[4].reason and "too long and thin" in bad[5].reason
    assert all(image.reason and "\n" not in image.reason for image in bad)


def test_pinning_a_batch_keeps_its_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    batch = Batch(torch.zeros(1, 2, 2, 3), torch.zeros(1), [BadImage("a", "b")])
    pinned = pin_memory(batch)
    assert isinstance(pinned, Batch) and pinned.bad == batch.bad
    assert isinstance(pinned.bad[0], BadImage)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system has no sigwaitinfo")
def test_workers_pass_over_signals_that_are_not_from_their_parent(tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())
    loader = loader_to_train(write_images(tmp_path, 40), replace(OPTIONS, num_workers=1))
    batches = iter(loader)
    next(batches)
    [worker] = set(multiprocessing.active_children()) - others
    for name in ("-TERM", "-INT"):
        subprocess.run(["kill", name, str(worker.pid)], check=True)
    assert len(list(batches)) == 9 and worker.is_alive()
    worker.terminate()
    worker.join(timeout=30)
    assert worker.exitcode == 0


def test_paths_of_every_kind_come_back_from_the_packed_list() -> None:
    paths = ["/a/b.png", "", "/ä/图.png", "/bytes\udcff.png", "relative"]
    files = ImageFiles(ImageList(paths, [3, 1, 4, 1, 5], ()))
    files = pickle.loads(pickle.dumps(files))
    assert [files.path(index) for index in range(len(files))] == paths
    assert [files.target(index) for index in range(len(files))] == [3, 1, 4, 1, 5]


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalising_on_the_device_is_bit_equal_to_normalising_a_picture(
    channels_last: bool,
) -> None:
    images = torch.arange(2 * 256 * 3).remainder(256).to(torch.uint8).reshape(2, 16, 16, 3)
    module = Normalize(channels_last=channels_last)
    planes = module(images)
    expected = np.stack([normalize(image.numpy()) for image in images])
    np.testing.assert_array_equal(planes.numpy(), expected)
    assert planes.dtype == torch.float32
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert planes.is_contiguous(memory_format=layout)
    assert module.state_dict() == {}


@pytest.mark.parametrize(
    ("scale", "ratio", "hflip", "setting"),
    [
        ((0.0, 1.0), (1.0, 1.0), 0.5, "AUG.CROP_SCALE"),
        ((0.5, 1.1), (1.0, 1.0), 0.5, "AUG.CROP_SCALE"),
        ((0.1, 1.0), (2.0, 1.0), 0.5, "AUG.CROP_RATIO"),
        ((0.1, 1.0), (1.0, 1.0), -0.1, "AUG.HFLIP"),
    ],
)
def test_augmentation_settings_outside_their_range_are_named(
    scale: tuple[float, float], ratio: tuple[float, float], hflip: float, setting: str
) -> None:
    with pytest.raises(ValueError, match=setting):
        train_loader(ImageList(["a"], [0], ("a",)), OPTIONS, scale=scale, ratio=ratio, hflip=hflip)


def test_loader_options_outside_their_range_and_empty_lists_are_refused() -> None:
    for name, value in (("batch_size", 0), ("image_size", 0), ("num_workers", -1), ("rank", 1)):
        with pytest.raises(ValueError, match=name):
            replace(OPTIONS, **{name: value})
    for make in (loader_to_train, loader_to_evaluate):
        with pytest.raises(ValueError, match="empty"):
            make(ImageList([], [], ("a",)))


def test_minus_one_worker_shares_the_cores_among_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert [num_workers(-1, cards) for cards in (1, 8, 16)] == [12, 1, 1]
    assert [num_workers(setting, 8) for setting in (0, 3)] == [0, 3]
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert num_workers(-1, 2) == 3
    with pytest.raises(ValueError, match="WORKERS is -2"):
        num_workers(-2, 1)
