"""lib/data/splitting.py: what is set aside, stratified, reproducible and disjoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib.data.image_list import ImageList
from lib.data.splitting import SetAside, names_below, write_split

FOLDER = Path("/data/flowers")
COUNTS = {"rose": 40, "lily": 10, "moss": 2, "fern": 1}


def flowers(folder: Path = FOLDER, counts: dict[str, int] = COUNTS) -> ImageList:
    names = tuple(sorted(counts))
    pictures = [(f"{folder}/{n}/{i}.jpg", names.index(n)) for n in names for i in range(counts[n])]
    paths, targets = zip(*pictures, strict=True)
    return ImageList(paths, targets, names)


def per_class(images: ImageList) -> dict[str, int]:
    return {name: images.targets.count(i) for i, name in enumerate(images.class_names)}


def test_each_class_gives_its_share_but_keeps_one_and_gives_one_if_it_can() -> None:
    train, val = SetAside(0.2).split(flowers(), FOLDER)
    assert per_class(val) == {"rose": 8, "lily": 2, "moss": 1, "fern": 0}
    assert sorted([*train.paths, *val.paths]) == sorted(flowers().paths)
    assert per_class(SetAside(0.99).split(flowers(), FOLDER)[0]) == dict.fromkeys(COUNTS, 1)


def test_neither_the_place_of_the_data_nor_the_order_of_the_files_matters() -> None:
    elsewhere = Path("/mnt/copy")
    here = SetAside(0.2).split(flowers(), FOLDER)[1]
    there = SetAside(0.2).split(flowers(elsewhere), elsewhere)[1]
    assert [p.removeprefix(str(FOLDER)) for p in here.paths] == [
        p.removeprefix(str(elsewhere)) for p in there.paths
    ]
    images = flowers()
    turned = ImageList(images.paths[::-1], images.targets[::-1], images.class_names)
    assert sorted(SetAside(0.2).split(turned, FOLDER)[1].paths) == sorted(here.paths)


def test_another_seed_sets_others_aside_and_a_picture_more_moves_few() -> None:
    first = set(SetAside(0.5).split(flowers(), FOLDER)[1].paths)
    assert set(SetAside(0.5, seed=1).split(flowers(), FOLDER)[1].paths) != first
    more = flowers(counts={**COUNTS, "rose": 41})
    assert len(first - set(SetAside(0.5).split(more, FOLDER)[1].paths)) <= 1


def test_what_was_set_aside_before_stays_so_and_what_is_new_or_moved_is_trained_on() -> None:
    first = SetAside(0.2).split(flowers(), FOLDER)[1]
    kept = frozenset(names_below(first, FOLDER))
    assert "moss/1.jpg" in kept or "moss/0.jpg" in kept
    more = flowers(counts={**COUNTS, "rose": 60, "fern": 30})
    train, val = SetAside(0.7, seed=5, kept=kept).split(more, FOLDER)
    assert val.paths == first.paths and len(train) == len(more) - len(val)
    moved = ImageList(
        tuple(path.replace("/lily/", "/moss/new_") for path in more.paths),
        tuple(2 if target == 1 else target for target in more.targets),
        more.class_names,
    )
    left = SetAside(0.2, kept=kept).split(moved, FOLDER)[1]
    assert set(left.paths) == {path for path in first.paths if "/lily/" not in path}
    for none_left, missing in (
        (frozenset({"x"}), "validate"),
        (names_below(more, FOLDER), "train"),
    ):
        with pytest.raises(ValueError, match=f"nothing to {missing}.*bring the pictures back"):
            SetAside(0.2, kept=frozenset(none_left)).split(more, FOLDER)


@pytest.mark.parametrize("folder", ["/d/f", "d/f", ".", "../d"])
def test_names_are_the_paths_below_the_folder(folder: str) -> None:
    """As listed: a Path drops the dot."""
    paths = tuple(os.path.join(Path(folder) / "rose", name) for name in ("a.jpg", "b/c.jpg"))
    names = names_below(ImageList(paths, (0, 0), ("rose",)), Path(folder))
    assert names == ["rose/a.jpg", "rose/b/c.jpg"] == [os.path.relpath(p, folder) for p in paths]


def test_single_pictures_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="no class has two pictures"):
        SetAside(0.2).split(flowers(counts={"a": 1, "b": 1}), FOLDER)


def test_an_evaluation_of_a_run_keeps_to_what_the_run_held_out(tmp_path: Path) -> None:
    """Fault S: a picture that is gone moved others, so that trained ones were validated with."""
    images = flowers()
    train, val = SetAside(0.2).split(images, FOLDER)
    rows = [f"train\t{path}" for path in train.paths] + [f"val\t{path}" for path in val.paths]
    (tmp_path / "split.tsv").write_text("\n".join(["part\tfile", *rows, ""]))
    again = SetAside.of_run(0.2, 0, tmp_path)
    fewer = flowers(counts={**COUNTS, "rose": 25})
    found = again.split(fewer, FOLDER)[1]
    assert set(found.paths) == set(val.paths) & set(fewer.paths) and len(found) < len(val)
    elsewhere = Path("/mnt/copy")
    moved = again.split(flowers(elsewhere), elsewhere)[1]
    assert names_below(moved, elsewhere) == names_below(val, FOLDER)
    other = flowers(counts={"oak": 10, "elm": 10})
    assert per_class(again.split(other, FOLDER)[1]) == {"oak": 2, "elm": 2}, "of another data set"
    assert SetAside.of_run(0.2, 7, tmp_path / "none") == SetAside(0.2, 7)


def test_names_that_a_list_has_to_escape_stay_held_out(tmp_path: Path) -> None:
    pictures = [(f"/d/{name}/{i}\t.jpg", target) for target, name in enumerate("ab") for i in "012"]
    paths, targets = zip(*pictures, strict=True)
    images = ImageList(paths, targets, ("a", "b"))
    train, val = SetAside(0.3).split(images, Path("/d"))
    write_split(train, val, tmp_path)
    assert SetAside.of_run(0.3, 5, tmp_path).split(images, Path("/d"))[1].paths == val.paths
