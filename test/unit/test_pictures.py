"""lib/data/picture_files.py: one answer to which pictures a folder holds, for every script."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures
from torchvision.datasets.folder import IMG_EXTENSIONS

from lib.config.load import load_config
from lib.config.recipe import Recipe
from lib.data import picture_files
from lib.data.image_list import read_split, read_train_val, read_val, sub_folders
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.data.picture_files import (
    PICTURE_SUFFIXES,
    find_pictures,
    find_sources,
    is_picture,
    network_input,
)
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.evaluation.predict.inputs import expand
from lib.offline import labels, preprocess
from lib.offline.infer import runner
from lib.offline.labels import labels_of_folder
from lib.training.finetuning.layout import folder_settings


def test_pictures_are_known_by_the_suffixes_that_torchvision_knows_and_more() -> None:
    """Fault S13: one rule for all programs, by the name alone."""
    assert set(IMG_EXTENSIONS) <= set(PICTURE_SUFFIXES)
    assert all(map(is_picture, ("a.b.JPEG", "a.jfif", "a.jpe", "a.pnm")))
    assert not any(map(is_picture, ("._a.jpg", "notes.txt", "a.gif", "a.heic", "a")))


def test_pictures_are_found_behind_links_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_pictures(tmp_path / "elsewhere", 2)
    write_pictures(root / "a", 1)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    found = find_pictures(root)
    assert found.pictures == ("a/0.png", "b/0.png", "b/1.png")
    assert found.left_out.lines(root) == []
    assert find_pictures(root, leave_out=root / "b").pictures == ("a/0.png",)


def test_what_is_left_out_is_counted_and_named_pictures_without_an_ending_too(
    tmp_path: Path,
) -> None:
    """Fault S13."""
    write_pictures(tmp_path / "a", 3)
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "without")
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "1.jpg_large")
    (tmp_path / "a" / "notes.md").write_text("no picture")
    (tmp_path / "a" / ".hidden.png").touch()
    assert find_pictures(tmp_path).left_out.lines(tmp_path) == [
        f"[Warning] left out of '{tmp_path}': 3 files without a picture's ending ('a/1.jpg_large', "
        "'a/notes.md', 'a/without'); 1 name hidden or of the system ('a/.hidden.png'); pictures by "
        "their content are 'a/1.jpg_large', 'a/without': give them an ending such as '.jpg' to "
        "have them taken"
    ]
    (tmp_path / "a" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no pictures.*by their content are 'a/1.jpg"):
        find_pictures(tmp_path)


SYSTEM = (
    "@eaDir/0.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "SYNOPHOTO_THUMB_M.jpg",
    "#recycle/0.jpg",
    "@Recently-Snapshot/0.jpg",
    "__MACOSX/0.jpg",
    ".Trash-1000/files/0.jpg",
    "lost+found/0.jpg",
    "System Volume Information/0.jpg",
    "$RECYCLE.BIN/0.jpg",
    ".AppleDouble/0.jpg",
    ".ipynb_checkpoints/0-checkpoint.jpg",
    "._0.jpg",
    "Thumbs.db",
    "desktop.ini",
    ".DS_Store",
    "0.jpg@SynoEAStream",
    "Icon\r",
)


def with_system_files(folder: Path) -> None:
    for name in SYSTEM:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff")


def test_what_systems_keep_is_no_data_and_no_class(tmp_path: Path) -> None:
    """Fault S11: in and beside class folders, behind links, and for every reader of folders."""
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            write_pictures(tmp_path / "there" / name, 2, seed=len(name))
            with_system_files(tmp_path / "there" / name)
        (tmp_path / part).mkdir()
        with_system_files(tmp_path / part)
        for name in ("ant", "bee"):
            (tmp_path / part / name).symlink_to(tmp_path / "there" / name)
    train, val = read_train_val(tmp_path, train_set="train", val_set="val")
    assert train.class_names == ("ant", "bee") and len(train) == len(val) == 4
    assert read_split(tmp_path, "val").paths == val.paths
    assert find_pictures(tmp_path / "val").pictures == (
        "ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png",
    )  # fmt: skip
    assert sub_folders(tmp_path / "val") == ("ant", "bee")
    (line,) = train.left_out.lines(tmp_path)
    assert line.startswith(
        f"left out of '{tmp_path}': {3 * len(SYSTEM)} names hidden or of the sys"
    )
    assert "'train/#recycle'" in line


def test_a_flat_folder_leaves_the_same_out(tmp_path: Path) -> None:
    """Fault S11."""
    write_pictures(tmp_path / "train" / "ant", 1)
    write_pictures(tmp_path / "val", 1)
    with_system_files(tmp_path / "val")
    (tmp_path / "val" / "val_label.txt").write_text("0.png 0\n")
    _, val = read_train_val(tmp_path, train_set="train", val_set="val")
    assert len(val) == 1 and len(val.left_out.system) == len(SYSTEM) and not val.left_out.others


@pytest.fixture
def unlistable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let a folder refuse to be listed, as one of mode 000 does; root may list any."""
    listing = os.scandir

    def refuse(folder: Path) -> None:
        def scandir(path: str | Path) -> object:
            if os.path.realpath(path) == os.path.realpath(folder):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return listing(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return refuse


def test_a_folder_that_cannot_be_listed_is_named_and_an_error(
    tmp_path: Path, unlistable: Callable[[Path], None]
) -> None:
    """Fault S10: at any depth, behind a link too, for every reader of folders."""
    for part in ("train", "val"):
        write_pictures(tmp_path / part / "ant" / "deep", 2)
        write_pictures(tmp_path / part / "bee", 2)
    (tmp_path / "val" / "bee" / "link").symlink_to(tmp_path / "val" / "ant")
    folder = tmp_path / "val" / "ant" / "deep"
    unlistable(folder)
    data = load_config().DATASET
    readers = (
        lambda: read_train_val(tmp_path, train_set="train", val_set="val"),
        lambda: read_val(tmp_path, val_set="val", class_names=None, num_classes=2),
        lambda: read_split(tmp_path, "val"),
        lambda: find_pictures(tmp_path / "val"),
        lambda: find_sources(tmp_path / "val" / "bee"),
        lambda: labels_of_folder(tmp_path / "val", None),
        lambda: expand([str(tmp_path / "val")]),
        lambda: expand([f"{tmp_path}/v*/**/*.png"]),
        lambda: expand([f"{tmp_path}/*/*/deep/*"]),
        lambda: folder_settings(tmp_path / "val", data),
        lambda: pack(tmp_path, tmp_path / "packed", PackOptions()),
    )
    for reader in readers:
        with pytest.raises(
            ValueError, match=r"folder '.*deep' can't be listed \(Permission denied"
        ):
            reader()
    unlistable(tmp_path / "val")
    with pytest.raises(ValueError, match="'.*val' can't be listed"):
        read_split(tmp_path, "val")


def test_folders_that_cannot_be_listed_but_are_left_out_do_no_harm(
    tmp_path: Path, unlistable: Callable[[Path], None]
) -> None:
    """Fault S10: a file system's lost+found belongs to root."""
    write_pictures(tmp_path, 1)
    (tmp_path / "lost+found").mkdir()
    unlistable(tmp_path / "lost+found")
    assert find_pictures(tmp_path).pictures == ("0.png",)


def test_a_pattern_takes_no_systems_folders_unless_it_names_them(tmp_path: Path) -> None:
    """Fault S11."""
    write_pictures(tmp_path / "a", 1)
    with_system_files(tmp_path / "a")
    paths, lines = expand([f"{tmp_path}/**/*.*"])
    assert paths == (f"{tmp_path}/a/0.png",) and "hidden or of the system" in lines[0]
    write_pictures(tmp_path / "a" / "@eaDir", 1)
    assert expand([f"{tmp_path}/a/@eaDir/*"]) == ((f"{tmp_path}/a/@eaDir/0.png",), [])


def test_two_of_one_stem_matter_only_where_results_are_named_after_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 1)
    assert find_pictures(tmp_path).pictures == ("a/0.png", "b/0.png")
    with pytest.raises(ValueError, match=r"'a/0.png' and 'b/0.png'"):
        find_sources(tmp_path)


def test_the_offline_steps_have_the_same_finder() -> None:
    for step in (preprocess, labels, runner):
        assert step.find_sources is picture_files.find_sources
    assert preprocess.Sources is picture_files.Sources


def test_a_networks_input_is_evaluations_and_an_unreadable_picture_is_named(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path, 1)
    path = tmp_path / "0.png"
    expected = normalize(eval_pixels(open_rgb(path), Recipe.for_crop(32)))
    assert np.array_equal(network_input(path, Recipe.for_crop(32)), expected)
    path.write_text("no picture")
    with pytest.raises(ValueError, match="0.png' can't be read: UnidentifiedImageError") as error:
        network_input(path, Recipe.for_crop(32))
    assert "\n" not in str(error.value)


def test_a_link_back_is_not_followed_and_a_pipe_is_no_picture(tmp_path: Path) -> None:
    """A loop would count each picture forty times, and a pipe would keep its reader waiting."""
    write_pictures(tmp_path / "n1" / "deeper", 2)
    (tmp_path / "n1" / "deeper" / "up").symlink_to(tmp_path / "n1")
    (tmp_path / "n1" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "n1" / "pipe.jpg")
    found = find_pictures(tmp_path).pictures
    assert found == ("n1/deeper/0.png", "n1/deeper/1.png", "n1/gone.jpg")


def test_training_and_evaluation_find_as_much(tmp_path: Path) -> None:
    write_pictures(tmp_path / "val" / "n1" / "deeper", 2)
    (tmp_path / "val" / "n1" / "deeper" / "up").symlink_to(tmp_path / "val")
    os.mkfifo(tmp_path / "val" / "n1" / "pipe.jpg")
    images = read_val(tmp_path, val_set="val", class_names=None, num_classes=1)
    assert [os.path.basename(path) for path in images.paths] == ["0.png", "1.png"]
