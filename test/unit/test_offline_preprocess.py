"""imagenet_torch_preprocess.py and lib/offline/preprocess.py: exact, restartable, never half."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command, script_environment
from PIL import Image
from torchvision import transforms as reference
from torchvision.datasets.folder import pil_loader

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe, eval_resize
from lib.data.normalize import Normalize
from lib.data.picture_files import Sources
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels
from lib.offline import preprocess as module
from lib.offline.preprocess import PreprocessOptions, picture_planes, preprocess
from lib.offline.preprocess_record import Target
from lib.runtime.run_folder import lock

SCRIPT = "imagenet_torch_preprocess.py"
MODES = {"RGB": "png", "L": "jpg", "CMYK": "jpg", "RGBA": "png", "P": "png", "LA": "webp"}
SIZES = [(61, 97), (97, 61), (64, 64), (5, 9), (1, 1), (131, 2), (40, 190)]
TINY = PreprocessOptions(Recipe.for_crop(8), num_workers=2, start_method="fork")


def picture(path: Path, *, size=(12, 10), mode="RGB", seed=0, **save) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(noise[:, :, 1]))
    image.convert(mode).save(path, **save)
    return path


def pictures(folder: Path, num: int) -> Path:
    for number in range(num):
        picture(folder / f"{number:02d}.png", seed=number)
    return folder


def torchvision_planes(path: Path, crop: int) -> np.ndarray:
    pipeline = reference.Compose(
        [
            reference.Resize(eval_resize(crop)),
            reference.CenterCrop(crop),
            reference.ToTensor(),
            reference.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return pipeline(pil_loader(str(path))).numpy()


def bins(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.bin")}


def record(folder: Path) -> dict:
    return json.loads((folder / "preprocess.json").read_text())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_values_are_bit_equal_to_torchvision(tmp_path, mode, size):
    path = picture(tmp_path / f"a.{MODES[mode]}", size=size, mode=mode)
    planes = picture_planes(path, Recipe.for_crop(56))
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    np.testing.assert_array_equal(planes, torchvision_planes(path, 56))


def test_files_of_natural_photos_are_bit_equal_to_torchvision_and_to_evaluation(
    tmp_path, run_script, natural_photos
):
    source, target = natural_photos, tmp_path / "target"
    assert run_script(SCRIPT, "hrnet", source, target).returncode == 0
    paths = sorted(source.rglob("*.JPEG"))
    assert len(paths) == record(target)["num_images"] == 77
    for path in paths:
        content = (target / f"{path.stem}.bin").read_bytes()
        assert len(content) == 602_112
        planes = np.frombuffer(content, "<f4").reshape(3, 224, 224)
        np.testing.assert_array_equal(planes, torchvision_planes(path, 224))
        pixels = torch.from_numpy(eval_pixels(open_rgb(path), Recipe()))
        np.testing.assert_array_equal(planes, Normalize()(pixels[None])[0].numpy())


def test_the_recipe_is_what_the_network_is_fed():
    """Pitfall 33: the constants stand once, and files keep them to compare."""
    assert (
        Recipe().as_json()
        == Recipe.for_crop(224).as_json()
        == {
            "orientation": "ignore",
            "resize": 256,
            "crop": 224,
            "interpolation": "bilinear",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "channels": "RGB",
            "layout": "CHW",
            "dtype": "float32",
        }
    )
    assert Recipe.from_json(json.loads(json.dumps(Recipe().as_json())), where="") == Recipe()


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest", "lanczos"])
def test_another_networks_pictures_are_torchvisions(tmp_path, run_script, interpolation):
    """Fault S5: foreign models get the bins that they were trained for."""
    source, target = tmp_path / "source", tmp_path / "bins"
    path = picture(source / "a.png", size=(61, 97))
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    numbers = ("--mean", *mean, "--std", *std)
    options = ("--image_size", 24, "--crop_share", 0.95, "--interpolation", interpolation)
    done = run_script(SCRIPT, "hrnet", source, target, *options, *numbers, "--channels", "BGR")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"prepared as 24 x 24 of a short side of 25, {interpolation}, mean 0.5 0.4 0.3" in (
        done.stdout
    )
    pipeline = reference.Compose(
        [
            reference.Resize(25, reference.InterpolationMode(interpolation)),
            reference.CenterCrop(24),
            reference.ToTensor(),
            reference.Lambda(lambda planes: planes.flip(0)),
            reference.Normalize(mean, std),
        ]
    )
    assert bins(target)["a.bin"] == pipeline(pil_loader(str(path))).numpy().tobytes()
    assert record(target)["recipe"]["std"] == list(std)
    again = run_script(SCRIPT, "hrnet", source, target, "--recipe", target / "preprocess.json")
    assert again.returncode == 0 and again.stdout.startswith("0 prepared, 1 were there")
    done = run_script(SCRIPT, "hrnet", source, target, "--image_size", 24)
    assert done.returncode == 2 and f"interpolation {interpolation} for bilinear" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mean", 123.675, 116.28, 103.53), "mean 123.675 116.28 103.53: of pixels in 0..1"),
        (("--std", 0, 1, 1), "must be above 0"),
        (("--resize", 0), "resize is 0"),
        (("--resize", 223), "below the crop's 224"),
        (("--crop_share", 1.5), "--crop_share 1.5"),
        (("--crop_share", 0.9, "--resize", 9), "not allowed with"),
        (("--interpolation", "box"), "'box'"),
        (("--recipe", "none.json"), "none.json"),
        (("--recipe", "a.json"), "a.json"),
        (("--recipe", "deep.json"), "nested too deeply"),
    ],
    ids=str,
)
def test_impossible_recipes_are_one_line(tmp_path, run_script, options, said):
    """Faults S5 and R6."""
    source = pictures(tmp_path / "source", 1)
    (tmp_path / "a.json").write_text('{"recipe": {"resize": true}}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    done = run_script(SCRIPT, "hrnet", source, tmp_path / "bins", *options, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "bins").exists()


def test_any_picture_is_read_under_any_pictures_ending_and_others_are_named(tmp_path):
    """Fault S13: a picture is taken by its name, as in training and evaluation."""
    source = tmp_path / "source"
    for name, kind in {
        "a.png": "JPEG", "b.jpg": "PNG", "c.jpeg": "WEBP", "d.JPG": "BMP",
        "e.jfif": "JPEG", "f.jpe": "PNG", "g.webp_": "WEBP", "h": "BMP",
    }.items():  # fmt: skip
        picture(source / name, format=kind)
    (source / "val_label.txt").write_text("a.png 0\n")
    (source / "notes.md").write_text("BM is no picture")
    (source / "._a.jpg").write_bytes(b"hidden")
    report = preprocess(source, tmp_path / "bins", TINY)
    assert (report.num_written, report.failed) == (6, {})
    (line,) = report.left_out.lines(source)
    assert "3 files without a picture's ending ('g.webp_', 'h', 'notes.md')" in line
    assert "pictures by their content are 'g.webp_', 'h': give them an ending" in line
    names = {"a.bin", "b.bin", "c.bin", "d.bin", "e.bin", "f.bin"}
    assert bins(tmp_path / "bins").keys() == names
    for name in ("a.png", "c.jpeg", "d.JPG"):
        expected = torchvision_planes(source / name, 8).tobytes()
        assert (tmp_path / "bins" / f"{Path(name).stem}.bin").read_bytes() == expected


def test_class_folders_give_the_same_files_as_a_flat_folder(tmp_path):
    flat = pictures(tmp_path / "flat", 6)
    for number, path in enumerate(sorted(flat.iterdir())):
        folder = tmp_path / "classes" / f"n{number % 2}" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    preprocess(flat, tmp_path / "a", TINY)
    preprocess(tmp_path / "classes", tmp_path / "classes" / "bins", TINY)
    assert bins(tmp_path / "a") == bins(tmp_path / "classes" / "bins") != {}
    assert record(tmp_path / "classes" / "bins")["sources"]["03"][0] == "n1/deeper/03.png"
    again = preprocess(tmp_path / "classes", tmp_path / "classes" / "bins", TINY)
    assert again.num_already_there == 6
    assert again.left_out.lines("") == []  # its own results are no source


def test_names_with_several_dots_keep_all_but_the_ending(tmp_path):
    """Pitfall 32."""
    for name in ("a.b.jpg", "a.c.jpg", "a.jpg", "v1.2.final.PNG"):
        picture(tmp_path / "source" / name)
    preprocess(tmp_path / "source", tmp_path / "bins", TINY)
    assert bins(tmp_path / "bins").keys() == {"a.b.bin", "a.c.bin", "a.bin", "v1.2.final.bin"}


@pytest.mark.parametrize("second", ["a.b.png", "cats/a.b.jpg"])
def test_two_pictures_with_one_stem_are_refused_before_anything_is_written(
    tmp_path, run_script, second
):
    """Pitfall 32."""
    picture(tmp_path / "source" / "a.b.jpg")
    picture(tmp_path / "source" / second)
    done = run_script(SCRIPT, "hrnet", tmp_path / "source", tmp_path / "bins")
    assert done.returncode == 2
    assert f"'a.b.jpg' and '{second}'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "bins").exists()


def test_an_unreadable_picture_is_named_and_the_rest_is_done(tmp_path, run_script):
    """Pitfall 31."""
    source, target = pictures(tmp_path / "source", 3), tmp_path / "bins"
    whole = picture(source / "cut.jpg", size=(90, 90)).read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "empty.png").touch()
    done = run_script(SCRIPT, "hrnet", source, target, "--image_size", 8)
    assert done.returncode == 1
    assert "[Warning] 'cut.jpg': OSError" in done.stderr
    assert "[Error] 2 pictures can't be read: 'cut.jpg', 'empty.png'" in done.stderr
    assert bins(target).keys() == {"00.bin", "01.bin", "02.bin"}
    assert record(target)["failed"].keys() == {"cut.jpg", "empty.png"}
    (source / "empty.png").unlink()
    (source / "cut.jpg").write_bytes(whole)
    done = run_script(SCRIPT, "hrnet", source, target, "--image_size", 8)
    assert (done.returncode, record(target)["failed"]) == (0, {})
    assert done.stdout.startswith("1 prepared, 3 were there")


@pytest.mark.parametrize("content", ["nothing", "no pictures", "no folder"])
def test_a_source_without_pictures_is_an_error(tmp_path, run_script, content):
    """Pitfall 31: zero files."""
    source = tmp_path / "source"
    if content != "no folder":
        source.mkdir()
    if content == "no pictures":
        (source / "readme.txt").write_text("x")
    done = run_script(SCRIPT, "hrnet", source, tmp_path / "bins")
    assert done.returncode == 2 and str(source) in done.stderr
    assert not (tmp_path / "bins").exists()


@pytest.mark.parametrize("arguments", [("resnet",), ("hrnet", "--image_size", "0")], ids=str)
def test_impossible_options_are_refused(tmp_path, run_script, arguments):
    source = pictures(tmp_path / "source", 1)
    done = run_script(SCRIPT, arguments[0], source, tmp_path / "bins", *arguments[1:])
    assert done.returncode == 2 and done.stderr.startswith("[Error]")
    for values in ({"num_workers": -1}, {"limit": -2}):
        with pytest.raises(ValueError, match="-"):
            PreprocessOptions(**values)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_processes_may_be_forked_or_spawned(tmp_path, start_method):
    """Pitfall 31."""
    source = pictures(tmp_path / "source", 20)
    options = PreprocessOptions(Recipe.for_crop(8), num_workers=2, start_method=start_method)
    assert preprocess(source, tmp_path / "bins", options).num_written == 20
    for path in source.iterdir():
        planes = picture_planes(path, Recipe.for_crop(8))
        assert (tmp_path / "bins" / f"{path.stem}.bin").read_bytes() == planes.tobytes()


def test_more_than_fifty_thousand_pictures_are_fine(tmp_path, monkeypatch):
    """Pitfall 31. The work on each is left out, which forked workers see."""
    names = {str(number): f"{number}.jpg" for number in range(50_001)}
    monkeypatch.setattr(module, "find_sources", lambda *_, **__: Sources(tmp_path, names, ()))
    monkeypatch.setattr(module, "_prepare", _prepare_none)
    report = preprocess(tmp_path, tmp_path / "bins", TINY)
    assert report.num_written + len(report.failed) == 50_001
    assert report.failed == {"7.jpg": "odd", "50000.jpg": "odd"}


def _prepare_none(tasks, *, make):
    odd = ("7", "50000")
    return [module._Outcome(task.stem, "odd" if task.stem in odd else "") for task in tasks]


def test_a_restart_keeps_what_is_finished_and_redoes_what_is_not(tmp_path):
    source, target = pictures(tmp_path / "source", 6), tmp_path / "bins"
    assert preprocess(source, target, TINY).num_written == 6
    first = bins(target)
    before = {path.name: path.stat().st_ino for path in target.glob("*.bin")}
    (target / "00.bin").unlink()
    (target / "01.bin").write_bytes(first["01.bin"][:-4])
    picture(source / "02.png", seed=99)
    os.utime(source / "02.png", (time.time() + 5, time.time() + 5))
    (source / "03.png").unlink()
    picture(source / "03.bmp", seed=98)
    os.utime(source / "03.bmp", (1, 1))  # old, but another file than the recorded one
    report = preprocess(source, target, TINY)
    assert (report.num_written, report.num_already_there) == (4, 2)
    again = bins(target)
    assert all(again[name] == first[name] for name in ("00.bin", "01.bin", "04.bin", "05.bin"))
    assert again["02.bin"] == picture_planes(source / "02.png", Recipe.for_crop(8)).tobytes()
    assert again["03.bin"] == picture_planes(source / "03.bmp", Recipe.for_crop(8)).tobytes()
    kept = {name for name, inode in before.items() if (target / name).stat().st_ino == inode}
    assert {"04.bin", "05.bin"} <= kept
    assert record(target)["sources"]["03"][0] == "03.bmp"
    (source / "02.png").write_text("broken later")
    os.utime(source / "02.png", (time.time() + 9, time.time() + 9))
    assert preprocess(source, target, TINY).failed.keys() == {"02.png"}
    assert not (target / "02.bin").exists()


def test_the_first_pictures_by_path_are_done_under_a_limit(tmp_path, run_script):
    source, target = pictures(tmp_path / "source", 5), tmp_path / "bins"
    tiny = ("--image_size", 8, "--workers", 1)
    assert run_script(SCRIPT, "hrnet", source, target, "--limit", 2, *tiny).returncode == 0
    assert bins(target).keys() == {"00.bin", "01.bin"}
    assert record(target)["num_images"] == 2
    assert run_script(SCRIPT, "hrnet", source, target, *tiny).stdout.startswith("3 prepared, 2 ")
    # What lies there beyond a limit is of the same pictures, and stays recorded.
    assert run_script(SCRIPT, "hrnet", source, target, "--limit", 1, *tiny).returncode == 0
    assert record(target)["num_images"] == 5


def test_the_record_says_how_and_from_what(tmp_path):
    source = pictures(tmp_path / "source", 2)
    (source / "bad.png").write_text("x")
    preprocess(source, tmp_path / "bins", TINY)
    content = record(tmp_path / "bins")
    assert "UnidentifiedImageError" in content["failed"].pop("bad.png")
    stats = [(source / name).stat() for name in ("00.png", "01.png")]
    newest_ns = max(path.stat().st_ctime_ns for path in (tmp_path / "bins").glob("*.bin"))
    assert content == {
        "model": "hrnet",
        "recipe": Recipe.for_crop(8).as_json(),
        "num_images": 2,
        "root": str(source.resolve()),
        "sources": {
            f"0{number}": [f"0{number}.png", stat.st_size, stat.st_mtime_ns]
            for number, stat in enumerate(stats)
        },
        "sums": {
            s: zlib.crc32((tmp_path / "bins" / f"{s}.bin").read_bytes()) for s in ("00", "01")
        },
        "newest_ns": newest_ns,
        "failed": {},
    }


def test_a_file_that_another_tool_replaced_is_noticed_and_made_again(tmp_path, run_script):
    """Fault A7: of the same size, with the times of the first."""
    source, target = pictures(tmp_path / "source", 3), tmp_path / "bins"
    preprocess(source, target, TINY)
    first = bins(target)
    before = (target / "01.bin").stat()
    (target / "01.bin").write_bytes(first["01.bin"][::-1])
    os.utime(target / "01.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    done = run_script(SCRIPT, "hrnet", source, target, "--image_size", 8)
    assert done.stdout.startswith("1 prepared, 2 were there")
    assert (
        "[Warning] 1 files were no longer as they had been written, and were made again: '01'"
        in (done.stderr)
    )
    assert bins(target) == first
    shutil.copytree(target, tmp_path / "copy")  # all of it has changed, and nothing has
    assert preprocess(source, tmp_path / "copy", TINY).num_already_there == 3


def test_files_of_a_run_that_knew_no_sums_stay(tmp_path):
    source, target = pictures(tmp_path / "source", 2), tmp_path / "bins"
    preprocess(source, target, TINY)
    old = record(target)
    sums = old.pop("sums")
    (target / "preprocess.json").write_text(json.dumps(old))
    assert preprocess(source, target, TINY).num_already_there == 2
    assert record(target)["sums"] == sums


@pytest.mark.parametrize(
    "change",
    [
        {"sources": {"00": 5}},
        {"sources": {"00": [5, 5, 5]}},
        {"sources": {"00": ["00.png", -1, 5]}},
        {"sources": 5},
        {"recipe": {"resize": None}},
        {"recipe": {"resize": [72]}},
        {"recipe": 5},
        {"model": 5},
        {"root": 5},
        {"sums": {"00": "x"}},
        {"newest_ns": 2**70},
    ],
    ids=str,
)
def test_a_record_of_wrong_types_is_one_line(tmp_path, change):
    """Fault R6."""
    source, target = pictures(tmp_path / "source", 1), tmp_path / "bins"
    preprocess(source, target, TINY)
    (target / "preprocess.json").write_text(json.dumps(record(target) | change))
    with pytest.raises(ValueError, match=r"preprocess.json.*: .* is .*: give an empty"):
        preprocess(source, target, TINY)
    for text in ("[" * 100_000, "5", "[]", '{"recipe": 1, "recipe": 2}'):
        (target / "preprocess.json").write_text(text)
        with pytest.raises(ValueError, match="preprocess.json.*: give an empty folder"):
            preprocess(source, target, TINY)


def test_files_are_as_ais_bench_wants_them_whatever_the_umask(tmp_path, run_script):
    """Fault A3: it refuses what the group may write to; links; and everything in the folder."""
    source, target = pictures(tmp_path / "source", 2), tmp_path / "bins"
    before = os.umask(0o002)
    try:
        preprocess(source, target, TINY)
        assert stat.S_IMODE(target.stat().st_mode) == 0o755
        names = {"00.bin", "01.bin", "preprocess.json", ".lock"}
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == (
            dict.fromkeys(names, 0o644)
        )
        os.chmod(target / "01.bin", 0o666)
        (target / "00.bin").unlink()
        preprocess(source, target, TINY)
        assert {stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {0o644}
    finally:
        os.umask(before)
    os.chmod(target, 0o775)
    (tmp_path / "link").symlink_to(target)
    done = run_script(SCRIPT, "hrnet", source, tmp_path / "link", "--image_size", 8)
    assert done.returncode == 0
    for said in ("others than its owner may write to it: chmod go-w", "refuses links"):
        assert said in done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o775  # the folder was not made here


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.png", "b_1-2.png"], []),
        (
            ["img.v1.png", "img.v2.png"],
            ["1 would be those of several pictures: 'img.v1' and 'img.v2'"],
        ),
        (["img.v1.png", "b.png"], ["would miss those of 1 pictures: 'img.v1'"]),
        (["a (1).png", "b+c.png", "d.png"], ["refuses 2: 'a (1)', 'b+c'"]),
        (["\u732b.png"], ["refuses 1: '\u732b'"]),
    ],
    ids=str,
)
def test_names_that_ais_bench_confuses_or_refuses_are_told(tmp_path, run_script, names, said):
    """Fault A2."""
    for name in names:
        picture(tmp_path / "source" / name)
    done = run_script(
        SCRIPT, "hrnet", tmp_path / "source", tmp_path / "bins", "--image_size", 8, "--workers", 1
    )
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert line.startswith("[Warning] ais_bench ") and words in line


def test_other_pictures_of_the_same_names_and_times_are_not_taken_for_the_first(tmp_path):
    """What stays of other pictures would be scored as if it were of these."""
    first, second = pictures(tmp_path / "first", 3), tmp_path / "second"
    for path in sorted(first.iterdir()):
        picture(second / path.name, seed=99)
        shutil.copystat(path, second / path.name)
    target = tmp_path / "bins"
    preprocess(first, target, TINY)
    assert preprocess(second, target, TINY).num_written == 3
    expected = picture_planes(second / "00.png", Recipe.for_crop(8)).tobytes()
    assert bins(target)["00.bin"] == expected
    # A copy that keeps its times (cp -p, rsync, tar) is older than the result, and still another.
    (second / "01.png").unlink()
    picture(second / "01.png", seed=7, size=(12, 11))
    os.utime(second / "01.png", (1, 1))
    report = preprocess(second, target, TINY)
    assert (report.num_written, report.num_already_there) == (1, 2)
    assert bins(target)["01.bin"] == picture_planes(second / "01.png", Recipe.for_crop(8)).tobytes()


def test_a_killed_run_leaves_nothing_that_the_next_one_takes_for_newer_pictures(
    tmp_path, monkeypatch
):
    source, target = pictures(tmp_path / "source", 3), tmp_path / "bins"
    preprocess(source, target, TINY)
    picture(source / "01.png", seed=50)
    child = os.fork()
    if not child:  # is gone as soon as it has written down what is to come
        write_record = Target.write_record

        def write_and_die(*arguments: object) -> None:
            write_record(*arguments)
            os._exit(9)

        monkeypatch.setattr(Target, "write_record", write_and_die)
        preprocess(source, target, TINY)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert record(target)["sources"].keys() == {"00", "01", "02"}
    assert preprocess(source, target, TINY).num_already_there == 2
    assert bins(target)["01.bin"] == picture_planes(source / "01.png", Recipe.for_crop(8)).tobytes()


def test_a_picture_that_is_gone_is_named_and_the_rest_is_done(tmp_path):
    source, target = pictures(tmp_path / "source", 3), tmp_path / "bins"
    preprocess(source, target, TINY)
    (source / "01.png").unlink()
    (source / "01.png").symlink_to("nowhere.png")
    report = preprocess(source, target, TINY)
    assert report.failed.keys() == {"01.png"} and report.num_already_there == 2
    assert bins(target).keys() == {"00.bin", "02.bin"}


def test_two_runs_into_one_folder_are_refused(tmp_path):
    source, target = pictures(tmp_path / "source", 1), tmp_path / "bins"
    with lock(target), pytest.raises(ValueError, match="another run is writing to"):
        preprocess(source, target, TINY)


@pytest.mark.parametrize("fault", ["recipe", "no record", "damaged record", "other pictures"])
def test_a_target_with_other_results_is_refused_with_a_way_out(tmp_path, fault):
    source, target = pictures(tmp_path / "source", 2), tmp_path / "bins"
    preprocess(source, target, TINY)
    before = bins(target)
    options = TINY
    if fault == "recipe":
        options = PreprocessOptions(Recipe.for_crop(16))
        expected = r"another recipe \(resize 9 for 18, crop 8 for 16\): give an empty folder"
    elif fault == "no record":
        (target / "preprocess.json").unlink()
        expected = "2 .bin files and no preprocess.json .*: give an empty folder"
    elif fault == "damaged record":
        (target / "preprocess.json").write_text('{"model": "hr')
        expected = "preprocess.json is damaged or no JSON: .*: give an empty folder"
    else:
        (target / "99.bin").write_bytes(b"x")
        expected = "1 results of pictures that .* lacks: '99'; remove them"
    with pytest.raises(ValueError, match=expected):
        preprocess(source, target, options)
    (target / "99.bin").unlink(missing_ok=True)
    assert bins(target) == before


def test_a_file_in_the_targets_place_is_refused(tmp_path):
    (tmp_path / "bins").touch()
    with pytest.raises(ValueError, match="not a folder"):
        preprocess(pictures(tmp_path / "source", 1), tmp_path / "bins", TINY)


def test_it_runs_where_torch_cannot_be_imported(tmp_path):
    """Pitfall 11. The blocked package comes first on the path, for the workers too."""
    for name in ("torch", "torchvision"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('blocked')")
    source = pictures(tmp_path / "source", 2)
    arguments = command(SCRIPT, ["hrnet", source, tmp_path / "bins", "--image_size", 8])
    environment = {**script_environment(), "PYTHONPATH": str(tmp_path / "blocked")}
    blocked = [sys.executable, "-c", "import torch"]
    assert subprocess.run(blocked, env=environment, capture_output=True).returncode == 1
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar off a terminal either
    assert len(bins(tmp_path / "bins")) == 2
