"""lib/ascend/uint8_bins.py: input files for AIPP, whole, recorded, and nobody else's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures
from PIL import Image

from lib.ascend.uint8_bins import uint8_recipe, write_uint8_bins
from lib.config.recipe import Recipe
from lib.offline import preprocess as preprocess_module
from lib.offline.infer.model import ModelDescription, TensorSpec
from lib.offline.infer.recipes import check_bins, wanted_recipe
from lib.offline.preprocess import PreprocessOptions, preprocess
from lib.runtime.cli import PartlyFailed, Stopped

SIDE, BYTES = 64, 3 * 72 * 72


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / "preprocess.json").read_text())


def names(folder: Path) -> list[str]:
    """What lies in a folder, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each input file was written, and what it holds."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("*.bin")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pictures, one of them in a folder behind a link."""
    write_pictures(tmp_path / "elsewhere", 1, seed=1)
    (tmp_path / "elsewhere" / "0.png").rename(tmp_path / "elsewhere" / "x.y.png")
    write_pictures(tmp_path / "pictures", 1)
    (tmp_path / "pictures" / "c1").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "pictures"


def test_what_is_there_already_is_kept_unless_its_picture_changed(
    source: Path, tmp_path: Path
) -> None:
    bins = tmp_path / "bins"
    write_uint8_bins(source, bins, side=SIDE)
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in bins.glob("*.bin")
    }
    write_pictures(source, 1, seed=5)
    assert write_uint8_bins(source, bins, side=SIDE).num_in_all == 2
    after = contents(bins)
    assert after["x.y.bin"] == before["x.y.bin"] and after["0.bin"][1] != before["0.bin"][1]


def test_files_are_recorded_and_may_be_written_again(source: Path, tmp_path: Path) -> None:
    bins = tmp_path / "bins"
    for _ in range(2):
        assert write_uint8_bins(source, bins, side=SIDE).num_in_all == 2
        assert names(bins) == ["0.bin", "preprocess.json", "x.y.bin"]
        assert (bins / "x.y.bin").stat().st_size == BYTES
    made = record(bins)
    paths = {stem: origin[0] for stem, origin in made["sources"].items()}
    assert paths == {"0": "0.png", "x.y": "c1/x.y.png"}
    assert (made["model"], made["num_images"], made["failed"]) == ("hrnet", 2, {})
    changed = {"crop": 72, "mean": None, "std": None, "layout": "HWC", "dtype": "uint8"}
    assert made["recipe"] == Recipe.for_crop(SIDE).as_json() | changed


def test_inference_refuses_them_for_a_model_of_normalised_pictures(
    source: Path, tmp_path: Path
) -> None:
    write_uint8_bins(source, tmp_path / "bins", side=SIDE)
    floats = TensorSpec("image", (1, 3, SIDE, SIDE), np.dtype(np.float32))
    model = ModelDescription(tmp_path / "m.onnx", (floats,), Recipe.for_crop(SIDE))
    with pytest.raises(
        ValueError, match=r"otherwise than .*m.onnx wants them \(crop 72 for 64, mean none for"
    ):
        check_bins([tmp_path / "bins"], model, wanted_recipe(model, None))
    silent = ModelDescription(tmp_path / "m.onnx", (floats,), None)
    with pytest.raises(ValueError, match="are uint8, but .*m.onnx takes float32"):
        check_bins([tmp_path / "bins"], silent, wanted_recipe(silent, None))
    own = ModelDescription(
        tmp_path / "m.onnx",
        (TensorSpec("image", (1, 72, 72, 3), np.dtype(np.uint8)),),
        uint8_recipe(SIDE),
    )
    found = check_bins([tmp_path / "bins"], own, wanted_recipe(own, None))
    assert found.remarks == () and len(found.sums) == 2


def test_pictures_that_cannot_be_read_are_named_and_recorded(source: Path, tmp_path: Path) -> None:
    bins = tmp_path / "bins"
    write_pictures(source / "later", 1)
    (source / "later" / "0.png").rename(source / "bad.png")
    write_uint8_bins(source, bins, side=SIDE)
    (source / "bad.png").write_text("no picture")
    with pytest.raises(PartlyFailed, match=r"1 of 3 pictures not read: 'bad.png' \(Unidentified"):
        write_uint8_bins(source, bins, side=SIDE)
    assert names(bins) == ["0.bin", "preprocess.json", "x.y.bin"], "of the earlier, good picture"
    assert list(record(bins)["failed"]) == ["bad.png"] and record(bins)["num_images"] == 2


def test_folders_without_pictures_and_two_of_one_stem_are_refused(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        write_uint8_bins(tmp_path / "absent", tmp_path / "bins", side=SIDE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        write_uint8_bins(tmp_path / "empty", tmp_path / "bins", side=SIDE)
    Image.new("RGB", (40, 40)).save(source / "0.jpg")
    with pytest.raises(ValueError, match=r"'0.jpg' and '0.png'"):
        write_uint8_bins(source, tmp_path / "bins", side=SIDE)
    assert not (tmp_path / "bins").exists()


def test_files_of_others_are_not_mixed_with(source: Path, tmp_path: Path) -> None:
    """ais_bench takes whatever lies in the folder."""
    floats = tmp_path / "floats"
    preprocess(source, floats, PreprocessOptions(Recipe.for_crop(SIDE), num_workers=1))
    with pytest.raises(ValueError, match=r"2 .bin files made by another recipe \(crop 64 for 72"):
        write_uint8_bins(source, floats, side=SIDE)
    bins = tmp_path / "bins"
    write_uint8_bins(source, bins, side=SIDE)
    with pytest.raises(ValueError, match="another recipe"):
        write_uint8_bins(source, bins, side=96)
    (bins / "stranger.bin").write_bytes(bytes(BYTES))
    with pytest.raises(ValueError, match=r"1 results of pictures that .* lacks: 'stranger'"):
        write_uint8_bins(source, bins, side=SIDE)
    for content in (None, "{", '{"recipe": 3}'):
        (bins / "preprocess.json").unlink(missing_ok=True)
        if content is not None:
            (bins / "preprocess.json").write_text(content)
        with pytest.raises(ValueError, match=r"no preprocess.json that|is damaged|recipe: it is 3"):
            write_uint8_bins(source, bins, side=SIDE)
    with pytest.raises(ValueError, match="is not a folder"):
        write_uint8_bins(source, source / "0.png", side=SIDE)


_prepare = preprocess_module._prepare


def _stop_the_parent(tasks: list[object], *, make: Callable[[str], object]) -> list[object]:
    outcomes = _prepare(tasks, make=make)
    if any(task.stem == "0" for task in tasks):  # once: a second signal ends a process at once
        os.kill(os.getppid(), signal.SIGTERM)
    return outcomes


def test_a_stop_leaves_whole_files_and_a_true_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "pictures", 60)
    monkeypatch.setattr(preprocess_module, "_prepare", _stop_the_parent)
    bins = tmp_path / "bins"
    with pytest.raises(Stopped, match="SIGTERM"):
        write_uint8_bins(tmp_path / "pictures", bins, side=SIDE, num_workers=1)
    written = [name for name in names(bins) if name.endswith(".bin")]
    assert 1 <= len(written) < 60 and names(bins) == sorted([*written, "preprocess.json"])
    assert {(bins / name).stat().st_size for name in written} == {BYTES}
    assert record(bins)["num_images"] == len(written)


def test_a_full_disk_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.offline.preprocess_record.write_json", fail)
    with pytest.raises(PartlyFailed, match=r"bins failed: .*No space left on device"):
        write_uint8_bins(source, tmp_path / "bins", side=SIDE)
