"""lib/data/transforms.py against torchvision's PIL pipeline, bit for bit."""

import ast
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as reference
from torchvision.datasets.folder import pil_loader

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe, eval_resize
from lib.data import transforms
from lib.data.picture_files import is_picture
from lib.data.rgb import open_rgb
from lib.data.transforms import (
    center_crop,
    eval_pixels,
    normalize,
    random_crop_box,
    resize_short_side,
    train_pixels,
)

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)

# Portrait, landscape, square, one side as wanted already, tiny, odd, long and thin.
SIZES = [(61, 97), (97, 61), (80, 80), (64, 75), (75, 64), (5, 9), (1, 1), (3, 131), (131, 2)]
MODES = {
    "RGB": "png",
    "L": "jpg",
    "CMYK": "jpg",
    "RGBA": "png",
    "P": "png",
    "LA": "png",
    "1": "png",
}


class TorchRandom(random.Random):
    """Draws from torch's global generator, as torchvision does."""

    def random(self) -> float:
        return torch.rand(1).item()

    def uniform(self, a: float, b: float) -> float:
        return torch.empty(1).uniform_(a, b).item()

    def randint(self, a: int, b: int) -> int:
        return int(torch.randint(a, b + 1, (1,)).item())


def random_picture(width: int, height: int, *, mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(pixels[:, :, 0]))
    return picture.convert(mode)


def reference_eval(path: Path, *, resize: int, crop: int) -> torch.Tensor:
    pipeline = reference.Compose(
        [
            reference.Resize(resize),
            reference.CenterCrop(crop),
            reference.ToTensor(),
            reference.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return pipeline(pil_loader(str(path)))


def assert_eval_is_bit_equal(path: Path, *, resize: int, crop: int) -> None:
    planes = normalize(eval_pixels(open_rgb(path), Recipe(resize=resize, crop=crop)))
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    expected = reference_eval(path, resize=resize, crop=crop).numpy()
    np.testing.assert_array_equal(planes, expected, err_msg=str(path))


def largest_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Kolmogorov-Smirnov statistic: the largest distance of two empirical distributions."""
    both = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_eval_preprocessing_is_bit_equal_to_torchvision_for_every_mode_and_shape(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    path = tmp_path / f"picture.{MODES[mode]}"
    random_picture(*size, mode=mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    assert_eval_is_bit_equal(path, resize=64, crop=56)


def test_eval_preprocessing_is_bit_equal_to_torchvision_at_imagenet_size(tmp_path: Path) -> None:
    sizes = random.Random(3)
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        size = sizes.randint(100, 640), sizes.randint(100, 640)
        random_picture(*size, seed=number).save(path)
        assert_eval_is_bit_equal(path, resize=256, crop=224)


def test_eval_preprocessing_is_bit_equal_to_torchvision_on_natural_photos(
    natural_photos: Path,
) -> None:
    paths = sorted(path for path in natural_photos.rglob("*") if is_picture(path.name))
    assert len(paths) == 77
    for path in paths:
        assert_eval_is_bit_equal(path, resize=256, crop=224)


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (9, 6), (8, 13), (13, 8), (12, 12)], ids=str)
@pytest.mark.parametrize("crop", [7, 8, 9])
def test_center_crop_cuts_and_fills_like_torchvision(size: tuple[int, int], crop: int) -> None:
    picture = random_picture(*size)
    expected = reference.CenterCrop(crop)(picture)
    np.testing.assert_array_equal(np.array(center_crop(picture, crop)), np.array(expected))


def test_normalize_is_bit_equal_to_torchvision_for_all_256_values() -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    pipeline = reference.Compose(
        [reference.ToTensor(), reference.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
    np.testing.assert_array_equal(normalize(pixels), pipeline(pixels).numpy())


def test_eval_resize_keeps_the_proportion_of_256_to_224() -> None:
    assert [eval_resize(crop) for crop in (224, 112, 32, 28)] == [256, 128, 36, 32]


def test_a_picture_too_long_and_thin_is_refused_by_name_of_its_size() -> None:
    with pytest.raises(ValueError, match="1 x 9000 pixels is too long and thin"):
        resize_short_side(Image.new("RGB", (1, 9000)), 256)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing", "folder"])
def test_an_undecodable_file_raises_and_its_handle_is_closed(tmp_path: Path, damage: str) -> None:
    """Pitfall 31: half a picture is an error, never a picture with a grey rest."""
    path = tmp_path / "bad.jpg"
    random_picture(90, 90).save(path)
    whole = path.read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a picture"}
    path.unlink()
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    handles = Path("/proc/self/fd")
    num_open = len(os.listdir(handles)) if handles.is_dir() else 0
    with pytest.raises(OSError):
        open_rgb(path)
    assert not handles.is_dir() or len(os.listdir(handles)) == num_open


def test_the_handle_of_a_good_file_is_closed_too(tmp_path: Path) -> None:
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("open files are counted in /proc, which this system lacks")
    random_picture(9, 9).save(tmp_path / "good.png")
    num_open = len(os.listdir(handles))
    picture = open_rgb(tmp_path / "good.png")
    assert picture.mode == "RGB" and len(os.listdir(handles)) == num_open


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (200, 20), (9, 7)], ids=str)
def test_training_pixels_equal_torchvisions_when_fed_the_same_random_numbers(
    size: tuple[int, int],
) -> None:
    picture = random_picture(*size)
    pipeline = reference.Compose(
        [reference.RandomResizedCrop(24, SCALE, RATIO), reference.RandomHorizontalFlip(0.5)]
    )
    for seed in range(60):
        torch.manual_seed(seed)
        expected = np.array(pipeline(picture))
        torch.manual_seed(seed)
        pixels = train_pixels(
            picture, size=24, rng=TorchRandom(), scale=SCALE, ratio=RATIO, hflip=0.5
        )
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 100)], ids=str)
def test_random_crops_are_distributed_like_torchvisions(size: tuple[int, int]) -> None:
    num_draws = 2000
    torch.manual_seed(0)
    blank = torch.empty(3, size[1], size[0])
    params = reference.RandomResizedCrop.get_params
    expected = [params(blank, list(SCALE), list(RATIO)) for _ in range(num_draws)]
    drawn = [
        random_crop_box(size, rng=random.Random(seed), scale=SCALE, ratio=RATIO)
        for seed in range(num_draws)
    ]
    ours = np.array([(left, top, w, h, w * h, w / h) for left, top, w, h in drawn])
    theirs = np.array([(left, top, w, h, w * h, w / h) for top, left, h, w in expected])
    # Equal distributions exceed this distance once in about 15,000 comparisons.
    allowed = 2.3 * (2 / num_draws) ** 0.5
    for column in range(6):
        assert largest_distance(ours[:, column], theirs[:, column]) < allowed


def test_the_area_of_random_crops_is_uniform() -> None:
    """Closed form: where every draw fits, area / picture is uniform between the two scales."""
    boxes = [
        random_crop_box((1000, 1000), rng=random.Random(seed), scale=(0.1, 0.5), ratio=(0.9, 1.1))
        for seed in range(4000)
    ]
    shares = [width * height / 1e6 for _, _, width, height in boxes]
    evenly_spread = [0.1 + 0.4 * (step + 0.5) / 4000 for step in range(4000)]
    assert largest_distance(shares, evenly_spread) < 2.3 / 4000**0.5


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (1, 1), (1, 50), (40, 31)], ids=str)
def test_a_picture_that_no_draw_fits_gives_torchvisions_central_crop(size: tuple[int, int]) -> None:
    never_fits = (1.5, 2.0)
    box = random_crop_box(size, rng=random.Random(0), scale=never_fits, ratio=RATIO)
    blank = torch.empty(3, size[1], size[0])
    top, left, height, width = reference.RandomResizedCrop.get_params(
        blank, list(never_fits), list(RATIO)
    )
    assert box == (left, top, width, height)


def test_training_pixels_depend_on_picture_and_seed_alone() -> None:
    picture = random_picture(50, 40)

    def prepare(seed: int, hflip: float = 0.5) -> np.ndarray:
        rng = random.Random(seed)
        return train_pixels(picture, size=16, rng=rng, scale=SCALE, ratio=RATIO, hflip=hflip)

    np.testing.assert_array_equal(prepare(5), prepare(5))
    assert not np.array_equal(prepare(5), prepare(6))
    np.testing.assert_array_equal(prepare(5, hflip=1.0), prepare(5, hflip=0.0)[:, ::-1])
    mirrored = prepare(5, hflip=1.0)
    assert mirrored.shape == (16, 16, 3) and mirrored.dtype == np.uint8
    assert mirrored.flags.c_contiguous


def test_transforms_need_only_numpy_and_pillow_and_state_the_constants_once() -> None:
    """Pitfall 33: the constants stand once, and the offline tools can import them without torch."""
    root = Path(transforms.__file__).parents[2]
    imported = set()
    for node in ast.walk(ast.parse(Path(transforms.__file__).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module.split(".")[0])
    assert imported <= {"io", "math", "random", "pathlib", "numpy", "PIL", "lib"}
    sources = [*root.glob("lib/**/*.py"), *root.glob("tools/*.py"), *root.glob("*.py")]
    stating_them = [path.name for path in sources if "0.456" in path.read_text("utf-8")]
    assert stating_them == ["recipe.py"]
