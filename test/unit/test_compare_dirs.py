"""tools/compare_dirs.py: how two folders of predictions differ."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.offline.prediction_diff import diff_folders
from lib.offline.prediction_files import write_prediction

COMPARE = "tools/compare_dirs.py"
LOGITS = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)


def write_folder(folder: Path, logits: np.ndarray, *, outfmt: str = "BIN") -> Path:
    """Write each row as the prediction of img.<number>."""
    folder.mkdir()
    for number, row in enumerate(logits):
        write_prediction(row[None], folder / f"img.{number}_0", outfmt)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two folders that differ by 0.25 in one output and by a flip in another sample."""
    other = LOGITS.copy()
    lowest = LOGITS[2].argmin()
    other[2, lowest] -= 0.25
    first, second = LOGITS[4].argsort()[-1:-3:-1]
    other[4, [first, second]] = LOGITS[4, [second, first]]
    return write_folder(tmp_path / "a", LOGITS), write_folder(tmp_path / "b", other)


def test_figures_agree_with_numpy(folders):
    a, b = (
        np.stack([np.fromfile(folder / f"img.{i}_0.bin", np.float32) for i in range(6)])
        for folder in folders
    )
    diff = diff_folders(*folders)
    difference = np.abs(a.astype(np.float64) - b)
    assert diff.num_compared == 6
    assert diff.largest_difference == difference.max()
    assert diff.largest_name == f"img.{difference.max(1).argmax()}"
    assert diff.mean_difference == pytest.approx(difference.mean())
    spread = np.float64(a.max()) - np.float64(a.min())
    assert diff.largest_relative == pytest.approx(difference.max() / spread)
    (flip,) = diff.flips
    assert (flip.name, flip.class_a, flip.class_b) == ("img.4", a[4].argmax(), b[4].argmax())
    assert flip.margin == pytest.approx(np.diff(np.sort(a[4])[-2:]).item())


@pytest.mark.parametrize("outfmt", ["BIN", "NPY", "TXT"])
def test_pairs_are_found_whatever_the_format(outfmt, tmp_path, run_script):
    """Pitfall 32: the names have two dots."""
    a = write_folder(tmp_path / "a", LOGITS)
    b = write_folder(tmp_path / "b", LOGITS, outfmt=outfmt)
    done = run_script(COMPARE, a, b, "--tolerance", 0 if outfmt != "TXT" else 6e-7)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 predictions compared\n")
    assert "top-1 flips: 0" in done.stdout


def test_flips_are_named_and_only_a_tolerance_makes_differences_fail(folders, run_script):
    done = run_script(COMPARE, *folders)
    assert done.returncode == 0
    assert "top-1 flips: 1\n  img.4: class " in done.stdout
    assert run_script(COMPARE, *folders, "--tolerance", 10).returncode == 0
    done = run_script(COMPARE, *folders, "--tolerance=0.01")
    assert done.returncode == 1
    assert done.stderr.startswith("[Error] the largest logit difference, ")
    assert "0.01" in done.stderr


def test_missing_files_are_named_on_either_side(folders, run_script):
    """Pitfall 34."""
    a, b = folders
    (a / "img.1_0.bin").unlink()
    (b / "img.3_0.bin").unlink()
    done = run_script(COMPARE, a, b)
    assert done.returncode == 1
    assert "only in A: 1\n  img.3\nonly in B: 1\n  img.1\n" in done.stdout
    assert done.stderr == ("[Error] 1 files are only in A, 1 only in B, 0 can't be compared\n")


def test_what_cannot_be_compared_is_named(folders, run_script):
    """Pitfall 34."""
    a, b = folders
    np.full(9, np.nan, np.float32).tofile(a / "img.0_0.bin")
    np.zeros(4, np.float32).tofile(b / "img.5_0.bin")
    done = run_script(COMPARE, a, b, "--json")
    assert done.returncode == 1
    content = json.loads(done.stdout)
    assert content["num_compared"] == 4
    assert content["broken"] == [
        "img.0: an output is not finite",
        "img.5: 9 outputs in A, 4 in B",
    ]


def test_json_has_every_figure_and_name(folders, run_script):
    content = json.loads(run_script(COMPARE, *folders, "--json").stdout)
    diff = diff_folders(*folders)
    assert content["largest_difference"] == diff.largest_difference
    assert content["flips"][0]["name"] == "img.4"
    assert set(content) == {
        "num_compared",
        "largest_difference",
        "largest_relative",
        "largest_name",
        "mean_difference",
        "flips",
        "only_in_a",
        "only_in_b",
        "broken",
        "dtype_a",
        "dtype_b",
    }


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_element_types_are_found_or_taken_as_given(dtype, tmp_path, run_script):
    """Fault S6."""
    a, b = write_folder(tmp_path / "a", LOGITS), write_folder(tmp_path / "b", LOGITS)
    for number, row in enumerate(LOGITS):
        row.astype(dtype).tofile(b / f"img.{number}_0.bin")
    for options in ((), ("--dtype_b", dtype)):
        done = run_script(COMPARE, a, b, "--tolerance=0.01", *options)
        assert done.returncode == 0, done.stderr
        assert f"6 predictions compared\nB's .bin files read as {dtype}\n" in done.stdout
    assert run_script(COMPARE, a, b, "--dtype_b", "float32").returncode == 1
    for number in range(6):
        np.full(9, 7 + number / 99, "float16").tofile(b / f"img.{number}_0.bin")
        (b / f"img.{number}_0.bin").write_bytes((b / f"img.{number}_0.bin").read_bytes() + b"\0G")
    done = run_script(COMPARE, a, b)
    assert done.returncode == 2 and "give the element type with --dtype_b" in done.stderr


def test_what_several_devices_computed_alike_counts_once(folders, run_script):
    """Fault A1."""
    a, b = folders
    for folder in ("device0_0", "device1_1"):
        (a / folder).mkdir()
        for path in a.glob("*.bin"):
            shutil.copy(path, a / folder)
    for path in a.glob("*.bin"):
        path.unlink()
    assert run_script(COMPARE, a, b).stdout.startswith("6 predictions compared\n")
    np.zeros(9, np.float32).tofile(a / "device1_1" / "img.2_0.bin")
    done = run_script(COMPARE, a, b)
    assert done.returncode == 1 and done.stdout.startswith("5 predictions compared\n")
    pair = "device1_1/img.2_0.bin beside device0_0/img.2_0.bin: two devices disagree"
    assert f"not comparable: 1\n  {pair}\n" in done.stdout and "only in" not in done.stdout


def test_a_pipe_or_a_device_is_named(folders, run_script):
    """Fault R7."""
    a, b = folders
    (a / "img.1_0.bin").unlink()
    os.mkfifo(a / "img.1_0.bin")
    (b / "img.3_0.bin").unlink()
    (b / "img.3_0.bin").symlink_to("/dev/zero")
    done = run_script(COMPARE, a, b)
    assert done.returncode == 1
    assert done.stdout.count("is no regular file") == 2


def test_long_lists_are_cut_for_people_only(tmp_path, run_script):
    a = write_folder(tmp_path / "a", np.zeros((30, 2), np.float32))
    b = write_folder(tmp_path / "b", np.zeros((1, 2), np.float32))
    assert "  and 9 more: --json names all" in run_script(COMPARE, a, b).stdout
    assert len(json.loads(run_script(COMPARE, a, b, "--json").stdout)["only_in_a"]) == 29


@pytest.mark.parametrize("case", ["missing", "empty", "twice", "tolerance"])
def test_what_the_user_can_mend_is_said_in_one_line(case, folders, tmp_path, run_script):
    a, b = folders
    (tmp_path / "empty").mkdir()
    options = {
        "missing": [a, tmp_path / "none"],
        "empty": [a, tmp_path / "empty"],
        "twice": [a, b],
        "tolerance": [a, b, "--tolerance=-1"],
    }[case]
    if case == "twice":
        write_prediction(LOGITS[:1], b / "img.0_0", "TXT")
    done = run_script(COMPARE, *options)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("[Error] ")
