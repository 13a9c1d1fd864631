"""What fine-tuning finds out of a folder, of weights and of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import write_pictures
from PIL import Image
from test_checkpoint import training_state

from lib.config.load import load_config
from lib.data.image_list import ImageList
from lib.models.weights.torch_file import save_atomically
from lib.training.finetuning.layout import folder_settings
from lib.training.finetuning.network import network_settings, resumed_settings
from lib.training.finetuning.survey import survey

SHARE = ("DATASET.VAL_SHARE", "0.2")
UPRIGHT = ("DATASET.ORIENTATION", "exif")


def make(root: Path, folders: list[str]) -> None:
    """Write one picture into each folder; one that ends in * stays empty."""
    for folder in folders:
        if folder.endswith("*"):
            (root / folder.rstrip("*")).mkdir(parents=True)
        else:
            write_pictures(root / folder, 1, size=(4, 4))


def found_in(root: Path, *overrides: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what `folder_settings` says of a folder, its name left out, and its remarks."""
    data = load_config(None, [*SHARE, *overrides]).DATASET
    found = folder_settings(root, data, given=overrides[::2])
    settings = dict(zip(found.settings[::2], found.settings[1::2], strict=True))
    assert settings.pop("DATASET.DATASET") == root.name
    return {key.removeprefix("DATASET."): value for key, value in settings.items()}, found.remarks


@pytest.mark.parametrize(
    ("folders", "train", "validation"),
    [
        (["train/a", "train/b", "val/a", "val/b"], "train", "val"),
        (["training/a", "training/b", "validation/a", "validation/b"], "training", "validation"),
        (["Train/a", "Train/b", "Val/a", "Val/b"], "Train", "Val"),
        (["TRAIN/a", "TRAIN/b", "Testing/a", "Testing/b"], "TRAIN", "Testing"),
        (["train/a", "train/b", "dev/a", "eval/a"], "train", "eval"),
        (["train/a", "train/b", "test/a", "test/b", "valid/a", "valid/b"], "train", "valid"),
        (["train/a", "train/b"], "train", None),
        (["train/a", "train/b", "val*"], "train", None),
        (["cats", "dogs"], ".", None),
        (["cats", "dogs/small", "dogs/large"], ".", None),
        (["car", "train", "plane"], ".", None),
        (["one/a", "one/b", "two/a", "two/b"], ".", None),
    ],
)
def test_the_splits_of_a_folder_are_found(tmp_path: Path, folders, train, validation) -> None:
    make(tmp_path, folders)
    expected = {"TRAIN_SET": train}
    if validation:
        expected |= {"TEST_SET": validation, "VAL_SHARE": "0"}
    assert found_in(tmp_path)[0] == expected


@pytest.mark.parametrize(
    ("folders", "unused"),
    [
        (["train/a", "train/b", "test"], "test/"),
        (["train/a", "train/b", "val/a", "test/a"], "test/"),
        (["train/a", "train/b", "car"], "car/"),
    ],
)
def test_folders_that_are_not_used_are_named(tmp_path: Path, folders, unused) -> None:
    make(tmp_path, folders)
    assert found_in(tmp_path)[1] == (f"not used: {unused}",)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["flowers/a", "flowers/b"], "1 class folder with pictures (flowers), and at least 2 are"),
        (["flowers/a", "flowers/b"], "is it ROOT/flowers?"),
        (["x/train/a", "x/train/b", "x/val/a", "__MACOSX/x*"], "is it ROOT/x?"),
        (["train/flowers/a", "train/flowers/b"], "is it ROOT/train/flowers?"),
        (["cats", "dogs*"], "put the pictures of each class into a folder of its own"),
        (["train", "test"], "train/, test/ but no train/ with class folders"),
        (["val/a", "val/b", "test/a"], "val/, test/ but no train/"),
        (["Train/a", "Train/b", "training/a"], "2 splits to train on, Train/, training/"),
    ],
)
def test_a_folder_whose_classes_are_not_clear_is_refused(tmp_path: Path, folders, said) -> None:
    make(tmp_path, folders)
    with pytest.raises(ValueError) as refused:
        found_in(tmp_path)
    assert said.replace("ROOT", str(tmp_path)) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_splits_named_on_the_command_line_hold(tmp_path: Path) -> None:
    make(tmp_path, ["one/a", "one/b", "two/a", "two/b", "train/a", "train/b", "val/a", "car"])
    assert found_in(tmp_path, "DATASET.TRAIN_SET", ".")[0] == {"TRAIN_SET": "."}
    assert found_in(tmp_path, "DATASET.TRAIN_SET", "one")[0] == {
        "TRAIN_SET": "one", "TEST_SET": "val", "VAL_SHARE": "0",
    }  # fmt: skip
    assert found_in(tmp_path, "DATASET.TEST_SET", "two")[0] == {
        "TRAIN_SET": "train", "VAL_SHARE": "0",
    }  # fmt: skip
    assert found_in(tmp_path, "DATASET.VAL_SHARE", "0.3")[0] == {"TRAIN_SET": "train"}


def test_a_flat_part_with_labels_validates(tmp_path: Path) -> None:
    make(tmp_path, ["train/a", "train/b", "test"])
    (tmp_path / "val_label.txt").write_text("0.png 1\n")
    assert found_in(tmp_path)[0]["TEST_SET"] == "test"


def test_the_network_is_that_of_the_weights_unless_it_is_said() -> None:
    assert network_settings("hrnet_w48", None) == ["MODEL.NAME", "hrnet_w48"]
    assert network_settings("hrnet_w18.timm_ssld", None) == ["MODEL.NAME", "hrnet_w18"]
    assert network_settings(None, None) == []
    assert network_settings("", "hrnet_w30") == ["MODEL.NAME", "hrnet_w30"]


def test_a_network_alone_takes_the_weights_of_its_name() -> None:
    named = ["MODEL.NAME", "hrnet_w30"]
    own = network_settings(None, "hrnet_w30", default_pretrained="hrnet_w18")
    assert own == ["MODEL.PRETRAINED", "hrnet_w30", *named]
    for default in ("", "mine.pth", "hrnet_w30.timm"):
        assert network_settings(None, "hrnet_w30", default_pretrained=default) == named


def test_a_resumed_run_tells_its_network(tmp_path: Path) -> None:
    overrides = ["MODEL.NAME", "cls_hrnet", "MODEL.EXTRA", "{STAGE1: {NUM_MODULES: 1}}"]
    config = load_config(None, overrides)
    state = training_state({}) | {"config": config.dump()}
    save_atomically(state, tmp_path / "checkpoint.pth.tar")
    settings = resumed_settings(tmp_path / "checkpoint.pth.tar")
    assert load_config(None, settings).MODEL == config.MODEL
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="no training state"):
        resumed_settings(tmp_path / "weights.pth")


def listed(folder: Path, num_bad: int, *, num_images: int = 10) -> ImageList:
    """Write pictures of one of two classes, the last ones damaged, and list them."""
    write_pictures(folder, num_images)
    paths = tuple(str(folder / f"{number}.png") for number in range(num_images))
    for path in paths[num_images - num_bad :]:
        Path(path).write_bytes(b"no picture")
    return ImageList(paths, (0,) * (num_images - 1) + (1,), ("many", "few"))


def surveyed(images: ImageList, val_images: ImageList, *overrides: str) -> list[str]:
    return survey(images, val_images, load_config(None, overrides).DATASET, progress=list)


def test_unequal_classes_and_bad_files_are_said(tmp_path: Path) -> None:
    data = listed(tmp_path / "train", 1), listed(tmp_path / "val", 0)
    lines = surveyed(*data, "DATASET.BAD_IMAGES_MAX_SHARE", "0.1")
    assert lines[1] == "pictures to train on a class: 1 ('few') to 9 ('many'), 9 in the middle"
    assert "TRAIN.CLASS_WEIGHTS balanced" in lines[2]
    assert lines[3] == "[Warning] 1 class has no picture that can be read: 'few' (to train on)"
    assert lines[4].startswith("[Warning] 1 file cannot be opened") and "9.png" in lines[4]


def test_more_bad_files_than_a_run_may_have_end_it_before_it_begins(tmp_path: Path) -> None:
    good, bad = listed(tmp_path / "good", 0), listed(tmp_path / "bad", 2)
    for data, part in (((bad, good), "train on"), ((good, bad), "validate with")):
        with pytest.raises(ValueError, match=f"2 of 10 pictures to {part}.*0.2 where.*SHARE 0.1 "):
            surveyed(*data, "DATASET.BAD_IMAGES_MAX_SHARE", "0.1")
        surveyed(*data, "DATASET.BAD_IMAGES_MAX_SHARE", "0.2")
        with pytest.raises(ValueError, match="set DATASET.BAD_IMAGES to skip"):
            surveyed(*data, "DATASET.BAD_IMAGES", "fail")


def test_pictures_of_other_kinds_than_the_usual_are_counted(tmp_path: Path) -> None:
    """Faults S1 and M3: turned, transparent and deep pictures, told by the heads of the files."""
    images, val_images = listed(tmp_path / "a", 0, num_images=3), listed(tmp_path / "b", 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(images.paths[0], "JPEG", exif=exif)
    Image.new("RGBA", (4, 6)).save(images.paths[1])
    Image.new("P", (4, 6)).save(images.paths[2], transparency=0)
    Image.new("I;16", (4, 6)).save(val_images.paths[0])
    lines = surveyed(images, val_images)
    assert lines[2:] == [
        "of your pictures 1 are stored turned (EXIF orientation): taken as they are stored; "
        "DATASET.ORIENTATION exif turns them upright",
        "of your pictures 2 have transparency: taken without it, as opaque",
        "of your pictures 1 are grey with more than 8 bits: scaled to 8",
    ]
    assert "turned upright (DATASET" in surveyed(images, val_images, *UPRIGHT)[2]
