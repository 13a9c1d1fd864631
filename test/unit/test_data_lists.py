"""image_list: what is found, in torchvision's order, and what each mistake is answered."""

import re
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from lib.data.build import read_train_val, read_val
from lib.data.image_list import ImageList

LABEL_FILE = "val_label.txt"


def write_pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)


def two_classes(root: Path) -> Path:
    for part in ("train", "val"):
        write_pictures(root / part, "ant/a.png", "bee/b.png", "bee/c.JPEG")
    return root


def flat_val(root: Path, labels: str) -> Path:
    write_pictures(root / "train", "ant/a.png", "bee/b.png")
    write_pictures(root / "val", "x.png", "y y.png")
    (root / LABEL_FILE).write_text(labels, encoding="utf-8")
    return root


def read(root: Path) -> tuple[ImageList, ImageList]:
    return read_train_val(root, train_set="train", val_set="val")


def refusal(error: type[Exception], root: Path) -> str:
    """The message that reading `root` gives, which is a single line."""
    with pytest.raises(error) as caught:
        read(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_class_folders_are_read_in_torchvisions_order(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    nested = ("ant/z.png", "ant/sub/a.png", "ant/sub-2/b.png", "ant/sub/deep/c.png", "ant/B.png")
    write_pictures(root / "train", *nested)
    (root / "train" / "ant" / "notes.txt").write_text("no picture")
    train, val = read(root)
    for images, part in ((train, "train"), (val, "val")):
        expected = ImageFolder(str(root / part))
        assert list(zip(images.paths, images.targets, strict=True)) == expected.samples
        assert list(images.class_names) == expected.classes
        assert len(images) == len(expected) and images.num_classes == 2


def test_hidden_files_and_folders_are_no_pictures_and_no_classes(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    write_pictures(root / "train", ".ipynb_checkpoints/a.png", "ant/.trash/b.png", "ant/._a.png")
    train, _ = read(root)
    assert train.class_names == ("ant", "bee") and len(train) == 3


def test_other_folder_names_for_the_two_parts_are_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "fit", "ant/a.png")
    write_pictures(tmp_path / "check", "ant/b.png")
    train, val = read_train_val(tmp_path, train_set="fit", val_set="check")
    assert train.paths == (str(tmp_path / "fit" / "ant" / "a.png"),)
    assert val.paths == (str(tmp_path / "check" / "ant" / "b.png"),)


def test_a_missing_data_path_is_named(tmp_path: Path) -> None:
    """Pitfall 22."""
    message = refusal(FileNotFoundError, tmp_path / "nowhere")
    assert "nowhere' is not a folder" in message and "train/" in message


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_part_is_named_beside_the_folders_there_are(tmp_path: Path, part: str) -> None:
    """Pitfall 22."""
    root = two_classes(tmp_path)
    (root / part).rename(root / "other")
    message = refusal(FileNotFoundError, root)
    assert f"has no folder {part!r}; its folders: 'other'" in message


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_part_is_named(tmp_path: Path, part: str) -> None:
    """Pitfall 22."""
    root = two_classes(tmp_path)
    (root / part).rename(root / "other")
    (root / part).mkdir()
    assert str(root / part) in refusal(FileNotFoundError, root)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_without_pictures_is_named(tmp_path: Path, part: str) -> None:
    """Pitfall 22."""
    root = two_classes(tmp_path)
    (root / part / "ant" / "a.png").rename(root / part / "ant" / "a.gif")
    message = refusal(FileNotFoundError, root)
    assert f"1 of 2 class folders in {root / part} have no pictures: 'ant' (looked for" in message


def test_classes_that_differ_are_named_on_each_side(tmp_path: Path) -> None:
    """Pitfall 22: a class that train has and val lacks."""
    root = two_classes(tmp_path)
    write_pictures(root / "train", "cat/a.png")
    write_pictures(root / "val", *(f"v{number}/a.png" for number in range(7)))
    message = refusal(ValueError, root)
    assert f"1 only in {root / 'train'} ('cat')" in message
    assert f"7 only in {root / 'val'} ('v0', 'v1', 'v2', 'v3', 'v4' and 2 more)" in message


def test_pictures_beside_class_folders_in_val_are_refused(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    write_pictures(root / "val", "stray.png")
    assert "stray.png" in refusal(ValueError, root)


@pytest.mark.parametrize("beside", [True, False], ids=["beside val", "inside val"])
def test_a_flat_val_takes_its_classes_from_the_label_file(tmp_path: Path, beside: bool) -> None:
    root = flat_val(tmp_path, "\ufeffy y.png 0\r\n\nx.png  1\n")
    if not beside:
        (root / LABEL_FILE).rename(root / "val" / LABEL_FILE)
    _, val = read(root)
    assert val.paths == (str(root / "val" / "x.png"), str(root / "val" / "y y.png"))
    assert val.targets == (1, 0)
    assert val.class_names == ("ant", "bee")


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        ("x.png 0\ny y.png 2\n", r"line 2: class 2 of 'y y.png' is outside 0\.\.1.*from 0"),
        ("x.png 0\ny y.png -1\n", r"line 2: class -1 of 'y y.png': classes .* from 0"),
        ("x.png 0\n\nlabel\n", r"line 3: 'label' is not of the form"),
        ("x.png ant\n", r"line 1: 'x.png ant' is not of the form"),
        ("x.png 0\nx.png 1\n", r"line 2: 'x.png' is listed a second time"),
        ("x.png 0\n", r"has 1 pictures that .*val_label.txt doesn't list: 'y y.png'"),
        ("", r"has 2 pictures that .*val_label.txt doesn't list: 'x.png', 'y y.png'"),
    ],
)
def test_a_mistake_in_the_label_file_is_located(tmp_path: Path, labels: str, pattern: str) -> None:
    """Pitfall 22."""
    message = refusal(ValueError, flat_val(tmp_path, labels))
    assert re.search(pattern, message)


def test_listed_pictures_that_are_missing_are_counted_and_a_few_named(tmp_path: Path) -> None:
    """Pitfall 22."""
    lost = "".join(f"lost{number}.png 0\n" for number in range(8))
    message = refusal(FileNotFoundError, flat_val(tmp_path, f"x.png 0\ny y.png 1\n{lost}"))
    assert "lists 8 pictures" in message and "'lost4.png' and 3 more" in message


def test_a_flat_val_without_labels_says_where_they_belong(tmp_path: Path) -> None:
    """Pitfall 22."""
    root = flat_val(tmp_path, "")
    (root / LABEL_FILE).unlink()
    message = refusal(FileNotFoundError, root)
    assert str(root / LABEL_FILE) in message and "<file> <class number, from 0>" in message


def test_known_class_names_place_the_folders_of_a_subset(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", "cat/a.png", "ant/b.png")
    known = ("dog", "cat", "ant")
    val = read_val(tmp_path, val_set="val", class_names=known, num_classes=None)
    assert val.class_names == known and val.num_classes == 3
    assert [Path(path).name for path in val.paths] == ["b.png", "a.png"]
    assert val.targets == (2, 1)


def test_a_folder_that_is_no_known_class_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val", "cat/a.png", "yak/b.png")
    with pytest.raises(ValueError, match=r"1 class folders .* trained on: 'yak'; it knows 2: 'c"):
        read_val(tmp_path, val_set="val", class_names=("cat", "dog"), num_classes=2)


def test_without_class_names_there_must_be_a_folder_for_each_output(tmp_path: Path) -> None:
    root = two_classes(tmp_path)
    val = read_val(root, val_set="val", class_names=None, num_classes=2)
    assert val.targets == (0, 1, 1)
    with pytest.raises(ValueError, match="has 2 class folders and the network 5 outputs"):
        read_val(root, val_set="val", class_names=None, num_classes=5)


def test_a_flat_val_needs_only_the_number_of_classes(tmp_path: Path) -> None:
    root = flat_val(tmp_path, "x.png 6\ny y.png 0\n")
    val = read_val(root, val_set="val", class_names=None, num_classes=7)
    assert val.targets == (6, 0) and val.num_classes == 7 and val.class_names[6] == "6"
    with pytest.raises(ValueError, match=r"class 6 of 'x.png' is outside 0\.\.5"):
        read_val(root, val_set="val", class_names=None, num_classes=6)
    with pytest.raises(ValueError, match="give the number of classes"):
        read_val(root, val_set="val", class_names=None, num_classes=None)
