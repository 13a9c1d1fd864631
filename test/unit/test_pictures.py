"""lib/pictures.py: one answer to which pictures a folder holds, for every script."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures

from lib import pictures
from lib.data.lists import read_val
from lib.offline import labels, preprocess
from lib.offline_infer import inputs
from lib.pictures import find_pictures, find_sources, network_input
from lib.recipe import Recipe
from lib.transforms import eval_pixels, normalize, open_rgb


def test_pictures_are_found_by_ending_or_content_behind_links_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_pictures(tmp_path / "elsewhere", 2)
    write_pictures(root / "a", 1)
    (root / "a" / "0.png").rename(root / "a" / "without")
    (root / "a" / "notes").write_text("no picture")
    (root / "a" / ".0.png").touch()
    (root / "b").symlink_to(tmp_path / "elsewhere")
    write_pictures(root / ".hidden", 1)
    found = find_pictures(root)
    assert found.pictures == ("a/without", "b/0.png", "b/1.png")
    assert found.others == ("a/notes",)
    assert find_pictures(root, leave_out=root / "b").pictures == ("a/without",)


def test_two_of_one_stem_matter_only_where_results_are_named_after_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 1)
    assert find_pictures(tmp_path).pictures == ("a/0.png", "b/0.png")
    with pytest.raises(ValueError, match=r"a/0.png and b/0.png"):
        find_sources(tmp_path)


def test_the_offline_steps_have_the_same_finder() -> None:
    for step in (preprocess, labels, inputs):
        assert step.find_sources is pictures.find_sources
    assert preprocess.Sources is pictures.Sources


def test_a_networks_input_is_evaluations_and_an_unreadable_picture_is_named(
    tmp_path: Path,
) -> None:
    write_pictures(tmp_path, 1)
    path = tmp_path / "0.png"
    expected = normalize(eval_pixels(open_rgb(path), Recipe.for_crop(32)))
    assert np.array_equal(network_input(path, Recipe.for_crop(32)), expected)
    path.write_text("no picture")
    with pytest.raises(ValueError, match="0.png can't be read: UnidentifiedImageError") as error:
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
