"""RandAugment, TrivialAugment and erasing: torchvision's own, from each picture's own numbers."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lib.data.augmenting import Changer, Extras, changer
from lib.data.build import read_train_val
from lib.data.decoding import has_fast_decoder
from lib.data.image_list import ImageList
from lib.data.loading import Batch, LoaderOptions, Sample, train_loader
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack

OPTIONS = LoaderOptions(batch_size=4, image_size=32, seed=3)
DECODERS = ["pillow", *(["fast"] if has_fast_decoder() else [])]
EXTRAS = {
    "randaugment": Extras("randaugment", 3, 12),
    "trivialaugment": Extras("trivialaugment"),
    "erasing": Extras(erase=0.6),
    "both": Extras("randaugment", erase=0.6),
}
MEAN_LEVELS = (124, 116, 104)
each_extra = pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)


def picture(seed: int = 0, size: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 100, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((size, size)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of JPEG pictures, one of them cut short."""
    root = tmp_path_factory.mktemp("augmented")
    for number in range(13):
        path = root / ("train" if number < 11 else "val") / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, 60)).save(path)
    bad = root / "train" / "c0" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:500])
    return root


def to_train(root: Path) -> ImageList:
    return read_train_val(root, train_set="train", val_set="val")[0]


def loader(images: ImageList, extras: Extras, **settings: object) -> DataLoader[Sample]:
    decoder = str(settings.pop("decoder", "pillow"))
    options = replace(OPTIONS, **settings)
    crop = {"scale": (0.3, 1.0), "ratio": (0.75, 1.33), "hflip": 0.5}
    return train_loader(images, options, decoder=decoder, extras=extras, **crop)


def epochs(batches: DataLoader[Sample]) -> list[Batch]:
    found = []
    for batches.batch_sampler.epoch in range(2):
        found += list(batches)
    return found


def pixels(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


@pytest.mark.parametrize("decoder", DECODERS)
def test_pictures_are_bit_equal_with_0_and_with_2_workers(folder: Path, decoder: str) -> None:
    """Over two epochs, and with a bad file, whatever the global generator's state is."""
    images, extras = to_train(folder), EXTRAS["both"]
    torch.manual_seed(1)
    alone = epochs(loader(images, extras, decoder=decoder))
    assert sum(len(batch.bad) for batch in alone) >= 2
    torch.manual_seed(2)
    shared = epochs(loader(images, extras, decoder=decoder, num_workers=2))
    assert torch.equal(pixels(alone), pixels(shared))
    assert not torch.equal(pixels(alone), pixels(epochs(loader(images, Extras(), decoder=decoder))))


def test_a_restart_inside_an_epoch_gives_the_rest_of_its_batches(folder: Path) -> None:
    """Pitfall 13."""
    images = to_train(folder)
    whole = epochs(loader(images, EXTRAS["both"]))
    resumed = loader(images, EXTRAS["both"])
    resumed.batch_sampler.epoch, resumed.batch_sampler.start_step = 1, 1
    assert torch.equal(pixels(list(resumed)), pixels(whole[4:]))


def test_packed_pictures_are_changed_as_files_are(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", PackOptions(num_workers=1))
    found, expected = (
        pixels(epochs(loader(to_train(root), EXTRAS["both"])))
        for root in (tmp_path / "out", folder)
    )
    assert torch.equal(found, expected)


@each_extra
def test_the_global_generator_stays_as_it_was(extras: Extras) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Changer(extras)(picture(), random.Random(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("extras", "theirs"),
    [
        (EXTRAS["randaugment"], lambda: v2.RandAugment(3, 12, interpolation=BILINEAR)),
        (EXTRAS["trivialaugment"], lambda: v2.TrivialAugmentWide(interpolation=BILINEAR)),
    ],
    ids=["randaugment", "trivialaugment"],
)
def test_what_is_done_to_a_picture_is_what_torchvision_does(extras: Extras, theirs) -> None:
    changes, num_changed = Changer(extras), 0
    for seed in range(40):
        found = changes(picture(seed), random.Random(seed))
        torch.manual_seed(random.Random(seed).getrandbits(32))
        assert np.array_equal(found, np.array(theirs()(Image.fromarray(picture(seed)))))
        num_changed += not np.array_equal(found, picture(seed))
    assert num_changed > 25


BILINEAR = v2.InterpolationMode.BILINEAR


def test_so_many_pictures_are_erased_as_the_probability_says_in_the_mean_colour() -> None:
    changes, before = Changer(Extras(erase=0.3)), picture()
    erased = []
    for seed in range(1500):
        after = changes(before, random.Random(seed))
        differs = (after != before).any(axis=2)
        if differs.any():
            rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
            box = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == MEAN_LEVELS).all()
            erased.append(box.shape[0] * box.shape[1] / 48**2)
    assert len(erased) / 1500 == pytest.approx(0.3, abs=0.05)
    assert min(erased) > 0.01 and max(erased) < 0.34


@each_extra
def test_changed_pictures_have_the_shape_and_type_of_others(extras: Extras) -> None:
    found = Changer(extras)(picture(), random.Random(0))
    assert found.shape == (48, 48, 3) and found.dtype == np.uint8 and found.flags.c_contiguous


def test_without_extras_no_number_is_drawn_and_torchvision_is_not_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changer(Extras()) is None
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    assert len(list(loader(to_train(folder), Extras()))) == 3


@each_extra
def test_without_torchvision_extras_are_refused_in_a_line(
    extras: Extras, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(ValueError, match="AUG.AUTO and AUG.ERASE need the torchvision") as error:
        changer(extras)
    assert "\n" not in str(error.value)
