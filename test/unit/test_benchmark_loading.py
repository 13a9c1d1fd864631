"""The benchmark of the training loader: what it compares, and that its figures add up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from lib.benchmark import loading
from lib.data import decoding


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A few small JPEG files, and small measurements."""
    monkeypatch.setattr(loading, "_NUM_FOR_WORKERS", 12)
    monkeypatch.setattr(loading, "_NUM_A_ROUND", 8)
    monkeypatch.setattr(loading, "_BATCH", 4)
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (60 + number, 50), (40 * number, 90, 20)).save(path)
    return paths


@pytest.mark.parametrize("decoder", ["fast", "pillow"])
def test_the_loader_is_compared_with_torchvisions_and_two_workers_with_one(
    pictures: list[Path], decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "fast":
        pytest.importorskip("simplejpeg", reason="the fast decoder is not installed")
    else:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    rows = loading.measure(pictures, size=32, rounds=1)
    beside_itself = ["itself with Pillow"] if decoder == "fast" else []
    peers = [row.peer_name.split(",")[0] for row in rows]
    assert peers == ["torchvision"] * 3 + [*beside_itself, "itself with 1 worker"]
    assert [row.goal for row in rows if row.goal] == [2.2, 2.2, 4.0, 1.8]
    assert rows[2].case == "packed with --resize 256, batches of 4, one core"
    for row in rows:
        assert row.mode == "load" and row.unit == "pictures/s"
        assert row.ours > 0 and row.peer > 0
        assert row.ratio == pytest.approx(row.ours / row.peer)  # of a single round
        assert row.remark == f"decoder {decoder}" or row.peer_name == "itself with Pillow"


def test_both_sides_make_pictures_of_the_wanted_size(pictures: list[Path]) -> None:
    image, _ = loading._Reference(pictures, loading._torchvision(32))[0]
    (batch, _) = loading._loader(loading._images(pictures), 32, "pillow")
    assert image.shape == (3, 32, 32) and batch.images.shape == (4, 32, 32, 3)


def test_a_bad_picture_is_named_instead_of_measured(pictures: list[Path]) -> None:
    pictures[2].write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"2\.jpg.*can't be read.*leave it out"):
        loading._batches(loading._loader(loading._images(pictures), 32, "pillow"))()
    with pytest.raises(ValueError, match=r"/2\.jpg.*can't be read"):
        loading._packed_images(pictures, pictures[0].parent / "scratch")


def test_packed_pictures_are_all_there_and_shrunk(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_PACKED_SIDE", 40)
    images = loading._packed_images(pictures, tmp_path / "scratch")
    sizes = [Image.open(io.BytesIO(images.contents.read(index))).size for index in range(5)]
    assert [height for _, height in sizes] == [40] * 5
