"""lib/data/decoding.py: the fast decoder beside Pillow, for every kind of file that there is."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.config.load import load_config
from lib.data import decoding
from lib.data.build import agree_on_decoder
from lib.data.decoding import FAST, PILLOW, Augmentation, choose_decoder, train_reader
from lib.data.image_list import ImageList
from lib.data.loading import LoaderOptions, train_loader
from lib.data.rgb import open_rgb
from lib.data.transforms import PixelArray, random_crop_box

simplejpeg = pytest.importorskip("simplejpeg", reason="the fast decoder is not installed")

AUGMENTATION = Augmentation(size=64, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5)
MAX_MEAN_DIFFERENCE = 2.0  # grey levels of 256
KINDS: dict[str, dict[str, object]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "optimised": {"optimize": True, "quality": 95},
}


def scene(width: int, height: int, *, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with shapes and shades as photos have them: coarse noise under finer noise."""
    noise = np.random.default_rng(seed)
    whole = np.zeros((height, width, 3))
    for parts, strength in ((4, 90.0), (12, 50.0), (40, 20.0)):
        coarse = noise.uniform(0, 255, (parts, parts, 3)).astype(np.uint8)
        layer = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        whole += np.asarray(layer) * (strength / 160)
    return Image.fromarray(whole.clip(0, 255).astype(np.uint8)).convert(mode)


def read(
    decoder: str, path: Path, seed: int, augmentation: Augmentation = AUGMENTATION
) -> tuple[PixelArray, object]:
    """The pixels, and the state that the generator is in afterwards."""
    rng = random.Random(seed)
    return train_reader(decoder, augmentation)(str(path), rng), rng.getstate()


def mean_difference(path: Path, seed: int, augmentation: Augmentation = AUGMENTATION) -> float:
    fast, state_after_fast = read(FAST, path, seed, augmentation)
    plain, state_after_plain = read(PILLOW, path, seed, augmentation)
    assert state_after_fast == state_after_plain, "crop and mirroring are drawn otherwise"
    assert fast.shape == (augmentation.size, augmentation.size, 3) and fast.dtype == np.uint8
    assert fast.flags.c_contiguous
    return float(np.abs(fast.astype(int) - plain).mean())


def assert_read_alike(path: Path, *, seeds: int = 6) -> None:
    """Bit for bit, as where Pillow does it for both."""
    for seed in range(seeds):
        fast, plain = read(FAST, path, seed), read(PILLOW, path, seed)
        np.testing.assert_array_equal(fast[0], plain[0])
        assert fast[1] == plain[1]


def assert_refused_alike(path: Path, *, seeds: int = 4) -> None:
    for seed in range(seeds):
        answers = []
        for decoder in (FAST, PILLOW):
            rng = random.Random(seed)
            with pytest.raises(Exception) as raised:
                train_reader(decoder, AUGMENTATION)(str(path), rng)
            answers.append((raised.type, str(raised.value), rng.getstate()))
        assert answers[0] == answers[1]
        assert answers[0][2] == random.Random(seed).getstate(), "a bad file draws nothing"


@pytest.fixture
def pillow_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a silent fall back to Pillow fail."""

    def refuse(*arguments: object, **settings: object) -> PixelArray:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(decoding, "_read_with_pillow", refuse)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(500, 375), (333, 501), (70, 80), (31, 200)], ids=str)
def test_fast_pixels_are_near_pillows_for_every_kind_of_jpeg(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    path = tmp_path / "picture.jpg"
    scene(*size).save(path, **KINDS[kind])
    for side in (32, 64, 224):
        augmentation = replace(AUGMENTATION, size=side)
        differences = [mean_difference(path, seed, augmentation) for seed in range(8)]
        assert np.mean(differences) <= MAX_MEAN_DIFFERENCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_decoder_reads_each_of_these_kinds_itself(
    tmp_path: Path, kind: str, pillow_is_not_asked: None
) -> None:
    path = tmp_path / "picture.jpg"
    scene(300, 200).save(path, **KINDS[kind])
    assert len({read(FAST, path, seed)[0].tobytes() for seed in range(9)}) == 9


@pytest.mark.parametrize("side", [64, 224])
def test_fast_pixels_are_near_pillows_on_natural_photos(natural_photos: Path, side: int) -> None:
    paths = sorted(path for path in natural_photos.rglob("*") if path.is_file())
    augmentation = replace(AUGMENTATION, size=side)
    differences = [mean_difference(path, seed, augmentation) for seed, path in enumerate(paths)]
    assert len(differences) == 77 and np.mean(differences) <= MAX_MEAN_DIFFERENCE
    if side == 224:  # few crops are reduced here, so most are Pillow's up to rounding
        assert np.median(differences) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_above_the_cut_are_those_of_the_whole_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.jpg"
    scene(203, 155).save(path, **KINDS[kind])
    content = path.read_bytes()
    frame = decoding._find_frame(content)
    assert frame is not None and (frame.width, frame.height) == (203, 155)
    whole = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)
    for bottom in range(1, 156):
        box = (3, bottom // 2, 100, bottom - bottom // 2)
        crop, edges = decoding._decode_crop(content, frame, box, size=224)
        assert edges is None
        np.testing.assert_array_equal(crop, whole[bottom // 2 : bottom, 3:103])


def test_a_reduced_crop_keeps_the_pixels_that_are_wanted_and_its_edges(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    picture = scene(611, 433)
    picture.save(path, quality=95)
    content = path.read_bytes()
    frame = decoding._find_frame(content)
    assert frame is not None
    reductions = set()
    for seed in range(150):
        box = random_crop_box(
            picture.size, rng=random.Random(seed), scale=(0.01, 1), ratio=(0.7, 1)
        )
        crop, edges = decoding._decode_crop(content, frame, box, size=32)
        left, top, right, bottom = (0, 0, *crop.shape[1::-1]) if edges is None else edges
        assert 0 <= left < 1 and 0 <= top < 1
        assert crop.shape[1] - 1 < right <= crop.shape[1]
        assert crop.shape[0] - 1 < bottom <= crop.shape[0]
        reduction = box[2] / (right - left)
        assert reduction == pytest.approx(box[3] / (bottom - top))
        assert min(right - left, bottom - top) >= 32 or reduction == 1
        reductions.add(round(reduction))
    assert reductions == {1, 2, 4, 8}


def test_a_grey_jpeg_has_three_equal_channels(tmp_path: Path, pillow_is_not_asked: None) -> None:
    scene(90, 120, mode="L").save(tmp_path / "grey.jpg")
    pixels, _ = read(FAST, tmp_path / "grey.jpg", 1)
    assert pixels.std() > 1
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_passed_over_as_open_rgb_does(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(120, 70).save(path, exif=exif)
    assert open_rgb(path).size == (120, 70)
    assert max(mean_difference(path, seed) for seed in range(6)) <= MAX_MEAN_DIFFERENCE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_where_it_is_asked_for(
    tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault M3: both decoders give the same part of the upright picture, reduced ones too."""
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(240, 140).save(path, exif=exif, quality=95)
    upright = replace(AUGMENTATION, orientation="exif")
    for size in (64, 20):
        augmentation = replace(upright, size=size)
        differences = [mean_difference(path, seed, augmentation) for seed in range(5)]
        assert max(differences) <= MAX_MEAN_DIFFERENCE
    whole = replace(upright, scale=(1, 1), ratio=(12 / 7, 12 / 7), hflip=0)
    turned = np.asarray(open_rgb(path, orientation="exif").resize((64, 64)))
    if orientation < 5:
        assert np.abs(read(FAST, path, 0, whole)[0].astype(int) - turned).mean() < 6
    monkeypatch.setattr(decoding, "_read_with_pillow", None)
    read(FAST, path, 0, upright)


@pytest.mark.parametrize(
    ("name", "mode", "form"),
    [
        ("a.png", "RGB", "PNG"),
        ("a.webp", "RGB", "WEBP"),
        ("a.jpg", "CMYK", "JPEG"),
        ("named_as_another.jpg", "RGBA", "PNG"),
        ("bitmap.jpeg", "L", "BMP"),
    ],
)
def test_what_the_fast_decoder_does_not_take_is_pillows_to_the_bit(
    tmp_path: Path, name: str, mode: str, form: str
) -> None:
    scene(90, 70, mode=mode).save(tmp_path / name, form)
    assert_read_alike(tmp_path / name)


def test_a_jpeg_named_as_another_format_is_known_by_its_content(
    tmp_path: Path, pillow_is_not_asked: None
) -> None:
    scene(90, 70).save(tmp_path / "a.png", "JPEG")
    read(FAST, tmp_path / "a.png", 0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.99])
def test_a_jpeg_cut_short_is_refused_wherever_the_crop_lies(tmp_path: Path, share: float) -> None:
    """Pitfall 31: half a picture is an error, never a picture with a grey rest."""
    path = tmp_path / "cut.jpg"
    thumbnail = tmp_path / "thumbnail.jpg"
    scene(16, 16).save(thumbnail)
    # A preview in the header has an end of its own, which is not that of the picture.
    scene(400, 300).save(path, quality=95, comment=thumbnail.read_bytes())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert_refused_alike(path, seeds=12)


def test_other_bad_files_are_refused_with_pillows_words(tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    scene(90, 70).save(path)
    whole = path.read_bytes()
    tables = whole.index(b"\xff\xc4") + 5
    for content in (
        b"text",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + b"\xff\xc0\x00\x00" * 9,
        whole[:tables] + bytes([255] * 16) + whole[tables + 16 :],  # impossible Huffman codes
        whole.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x09"),  # 9 bits a sample
    ):
        path.write_bytes(content)
        assert_refused_alike(path)
    path.unlink()
    assert_refused_alike(path)
    path.mkdir()
    assert_refused_alike(path)


def test_whatever_a_damaged_file_gives_no_file_is_bad_for_the_fast_decoder_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "damaged.jpg"
    scene(160, 120).save(path)
    whole = bytearray(path.read_bytes())
    noise = random.Random(0)
    num_good = 0
    for _ in range(300):
        content = whole.copy()
        for _ in range(noise.randint(1, 3)):
            content[noise.randrange(2, len(content))] = noise.randrange(256)
        path.write_bytes(content)
        try:
            read(PILLOW, path, 1)
        except Exception:  # what it raises is Pillow's affair
            continue
        assert read(FAST, path, 1)[0].shape == (64, 64, 3)
        num_good += 1
    assert num_good > 50


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(
    tmp_path: Path, pillow_is_not_asked: None
) -> None:
    path = tmp_path / "a.jpg"
    scene(90, 70).save(path)
    before = [read(FAST, path, seed)[0] for seed in range(5)]
    path.write_bytes(path.read_bytes() + b"more" * 300)
    after = [read(FAST, path, seed)[0] for seed in range(5)]
    np.testing.assert_array_equal(before, after)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pillows_limit_on_the_size_of_pictures_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene(90, 70).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 70 // 3)
    assert_refused_alike(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 70 - 1)
    assert_read_alike(tmp_path / "a.jpg")


def test_processors_that_torch_has_no_code_for_give_the_same_up_to_one_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    scene(200, 150).save(path)
    pixels = {}
    for name in ("DEFAULT", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        pixels[name] = np.stack([read(FAST, path, seed)[0] for seed in range(8)]).astype(int)
    assert np.abs(pixels["DEFAULT"] - pixels["AVX2"]).max() <= 1


def test_fast_batches_are_bit_equal_with_0_and_with_2_workers(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(9)]
    for number, path in enumerate(paths):
        scene(80 + number, 90, seed=number).save(path)
    Path(paths[3]).write_bytes(Path(paths[3]).read_bytes()[:900])
    images = ImageList(paths, list(range(9)), tuple("abcdefghi"))

    def batches(num_workers: int) -> list[object]:
        options = LoaderOptions(4, 32, num_workers, seed=3)
        augmented = {"scale": (0.3, 1.0), "ratio": (0.75, 1.33), "hflip": 0.5}
        return list(train_loader(images, options, decoder=FAST, **augmented))

    alone, shared = batches(0), batches(2)
    assert sum(len(batch.bad) for batch in alone) >= 1
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.images, other.images) and one.bad == other.bad


def test_auto_takes_the_fast_decoder_where_it_can_and_stays_with_a_resumed_runs_pillow() -> None:
    chosen = {
        (setting, is_installed, saved): choose_decoder(
            setting, is_installed=is_installed, saved=saved
        )
        for setting in ("auto", PILLOW)
        for is_installed in (True, False)
        for saved in (None, FAST, PILLOW)
    }
    fast = {key for key, decoder in chosen.items() if decoder == FAST}
    assert fast == {("auto", True, None), ("auto", True, FAST)}
    assert choose_decoder(FAST, is_installed=True, saved=PILLOW) == FAST
    with pytest.raises(ValueError, match="DATASET.DECODER is fast.*pip install simplejpeg"):
        choose_decoder(FAST, is_installed=False)


def test_all_ranks_take_pillow_where_one_lacks_the_fast_decoder() -> None:
    class Ranks:
        def __init__(self, *others: bool) -> None:
            self._others = others

        def gather(self, item: object) -> list[object]:
            return [item, *self._others]

    config = load_config()
    assert agree_on_decoder(config, Ranks(True), saved=None) == FAST  # type: ignore[arg-type]
    assert agree_on_decoder(config, Ranks(False), saved=None) == PILLOW  # type: ignore[arg-type]


def test_without_simplejpeg_there_is_no_fast_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding.has_fast_decoder()
    monkeypatch.setattr(decoding, "simplejpeg", None)
    assert not decoding.has_fast_decoder()
