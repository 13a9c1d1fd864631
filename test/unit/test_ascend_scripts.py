"""The files for an Ascend machine: command lines, AIPP's configuration, scripts, input files."""

from __future__ import annotations

import shlex
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, write_pictures
from test_ascend import IMAGE, note_calls

from lib.ascend.aipp import uint8_size
from lib.ascend.scripts import Conversion, aipp_config, atc_commands, infer_script, write_scripts
from lib.ascend.uint8_bins import write_uint8_bins
from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.export.atc_rules import ModelInput

# The options that ATC documents, of those that are used here.
ATC_OPTIONS = {
    "--framework",
    "--model",
    "--input_format",
    "--input_shape",
    "--output",
    "--output_type",
    "--log",
    "--soc_version",
    "--dynamic_batch_size",
    "--insert_op_conf",
    "--precision_mode",
    "--precision_mode_v2",
}


def plan(tmp_path: Path, **changes: object) -> Conversion:
    values = {"soc_version": "Ascend910A", "batches": (1, 16), "image": IMAGE, **changes}
    return Conversion(tmp_path / "hrnet.onnx", tmp_path / "om", **values)


def options_of(command: str) -> dict[str, str]:
    program, *words = shlex.split(command)
    assert program == "atc"
    return dict(word.split("=", 1) for word in words)


def test_atc_is_called_once_a_batch_as_documented(tmp_path: Path) -> None:
    one, sixteen = atc_commands(plan(tmp_path))
    assert options_of(sixteen) == {
        "--framework": "5",
        "--model": "../hrnet.onnx",
        "--input_format": "NCHW",
        "--input_shape": "image:16,3,224,224",
        "--output": "hrnet_bs16",
        "--output_type": "FP32",
        "--log": "error",
        "--soc_version": "Ascend910A",
    }
    assert '--input_shape="image:1,3,224,224" --output=hrnet_bs1 ' in one


def test_one_om_for_all_batches_has_a_free_batch_and_its_steps(tmp_path: Path) -> None:
    (command,) = atc_commands(plan(tmp_path, dynamic=True, batches=(1, 4, 8)))
    options = options_of(command)
    assert options["--input_shape"] == "image:-1,3,224,224"
    assert options["--dynamic_batch_size"] == "1,4,8"
    assert options["--output"] == "hrnet_dynamic"


@pytest.mark.parametrize(
    "mode, option",
    [
        ("fp16", "--precision_mode_v2"),
        ("origin", "--precision_mode_v2"),
        ("mixed_float16", "--precision_mode_v2"),
        ("force_fp32", "--precision_mode"),
    ],
)
def test_precision_goes_to_the_option_that_knows_it(mode: str, option: str, tmp_path: Path) -> None:
    options = options_of(atc_commands(plan(tmp_path, precision_mode=mode, aipp=True))[0])
    assert options[option] == mode and options["--insert_op_conf"] == "aipp.cfg"
    assert options.keys() <= ATC_OPTIONS
    assert len({"--precision_mode", "--precision_mode_v2"} & options.keys()) == 1


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"soc_version": "910A"}, "--soc_version 910A: .*Ascend910A"),
        ({"soc_version": "Ascend910A; rm"}, "--soc_version"),
        ({"precision_mode": "fp8"}, "--precision_mode fp8 is not one of fp16, origin"),
    ],
)
def test_values_that_atc_does_not_know_are_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        plan(tmp_path, **changes)


def test_a_file_name_that_atc_does_not_take_is_refused_but_parents_may_have_any(
    tmp_path: Path,
) -> None:
    parent = tmp_path / "my models"
    arguments = (IMAGE, "Ascend910A", (1,))
    made = Conversion(parent / "a.onnx", parent / "om", *arguments)
    assert made.model == "../a.onnx"
    with pytest.raises(ValueError, match="my net.onnx"):
        Conversion(parent / "my net.onnx", parent / "om", *arguments)


def fields_of(text: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    assert lines[0] == "aipp_op {" and lines[-1] == "}"
    return dict(line.split(": ") for line in lines[1:-1])


def test_aipp_has_the_documented_fields_and_numbers() -> None:
    text = aipp_config(224)
    assert "uint8, NHWC" in text.splitlines()[0]
    assert fields_of(text) == {
        "aipp_mode": "static",
        "related_input_rank": "0",
        "input_format": "RGB888_U8",
        "src_image_size_w": "256",
        "src_image_size_h": "256",
        "crop": "true",
        "load_start_pos_w": "16",
        "load_start_pos_h": "16",
        "crop_size_w": "224",
        "crop_size_h": "224",
        "csc_switch": "false",
        "rbuv_swap_switch": "false",
        **{f"mean_chn_{channel}": "0" for channel in range(3)},
        "min_chn_0": "123.675",
        "min_chn_1": "116.28",
        "min_chn_2": "103.53",
        "var_reci_chn_0": "0.0171247538",
        "var_reci_chn_1": "0.0175070028",
        "var_reci_chn_2": "0.0174291939",
    }


def aipp(pixels: np.ndarray, fields: dict[str, str]) -> np.ndarray:
    """What AIPP documents: crop, then (pixel - mean - min) * var_reci, numbers in float16."""
    top, left = int(fields["load_start_pos_h"]), int(fields["load_start_pos_w"])
    height, width = int(fields["crop_size_h"]), int(fields["crop_size_w"])
    cut = pixels[top : top + height, left : left + width].transpose(2, 0, 1).astype(np.float32)

    def numbers(name: str) -> np.ndarray:
        values = [np.float16(fields[f"{name}_{channel}"]) for channel in range(3)]
        return np.array(values, np.float32)[:, None, None]

    return (cut - numbers("mean_chn") - numbers("min_chn")) * numbers("var_reci_chn")


@pytest.mark.parametrize("side", [32, 64, 96, 128, 160, 224])
def test_a_uint8_file_under_aipp_is_what_the_network_was_trained_on(
    side: int, tmp_path: Path
) -> None:
    size = uint8_size(side)
    for number, shape in enumerate([(300, 411), (301, 300), (97, 98), (40, 53)]):
        write_pictures(tmp_path / f"{number}", 1, seed=number, size=shape)
        source, target = tmp_path / f"{number}", tmp_path / f"{number}bins"
        assert write_uint8_bins(source, target, side=side, num_workers=1).num_in_all == 1
        pixels = np.fromfile(target / "0.bin", np.uint8).reshape(size, size, 3)
        image = open_rgb(source / "0.png")
        expected = eval_pixels(image, Recipe.for_crop(side))
        margin = (size - side) // 2
        inner = pixels[margin : margin + side, margin : margin + side]
        np.testing.assert_array_equal(inner, expected)
        result = aipp(pixels, fields_of(aipp_config(side)))
        assert np.abs(result - normalize(expected)).max() < 0.0012


@pytest.mark.parametrize("changes", [{}, {"aipp": True}, {"dynamic": True}], ids=str)
def test_the_scripts_are_clean_shell(changes: dict[str, object], tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=sysconfig.get_path("scripts"))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    written = write_scripts(plan(tmp_path, **changes), tmp_path / "it's here")
    assert set(written) == {"atc.sh", "infer.sh"} | ({"aipp.cfg"} if "aipp" in changes else set())
    scripts = [str(path) for path in written.values() if path.suffix == ".sh"]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_infer_sh_prepares_runs_scores_and_measures_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    log = note_calls(tmp_path / "bin", "python3")
    made = plan(tmp_path, batches=(1, 16))
    script = write_scripts(made, tmp_path / "a repo")["infer.sh"]
    (tmp_path / "val labels.txt").touch()
    arguments = [str(tmp_path), str(tmp_path / "val labels.txt"), "3"]
    done = subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = [line.removeprefix(f"{made.folder}: ") for line in log.read_text().splitlines()]
    repo, bench = (
        tmp_path / "a repo",
        "-m ais_bench --model hrnet_bs16.om --batchsize 16 --device 3",
    )
    saving = "--input inputs --output result --output_dirname bs16 --outfmt TXT"
    scoring = f"{repo}/imagenet_acc_eval.py result/bs16 {tmp_path}/val labels.txt result bs16.json"
    assert calls[0] == f"{repo}/imagenet_torch_preprocess.py hrnet {tmp_path} inputs"
    assert calls[4:] == [f"{bench} {saving}", scoring, f"{bench} --loop 1000"]
    usage = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert usage.returncode == 2 and "bash infer.sh PICTURES VAL_LABEL [DEVICE]" in usage.stderr


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b"], ""),
        (["img.v1", "img.v2"], "1 results will be those of several pictures"),
        (["img.v1", "b"], "the score will miss 1 pictures with dots"),
    ],
)
def test_infer_sh_warns_of_what_ais_bench_mixes_up_before_the_npu_runs(
    names: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults A2 and A3: and its output folder is one that it takes, whatever the umask."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    note_calls(tmp_path / "bin", "python3")
    made = plan(tmp_path)
    script = write_scripts(made, tmp_path)["infer.sh"]
    (made.folder / "inputs").mkdir()
    for name in names:
        (made.folder / "inputs" / f"{name}.bin").touch()
    (tmp_path / "labels.txt").touch()
    arguments = ["bash", str(script), str(tmp_path), str(tmp_path / "labels.txt")]
    done = subprocess.run(arguments, capture_output=True, text=True, umask=0o002)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == bool(said) and said in done.stderr
    assert stat.S_IMODE((made.folder / "result").stat().st_mode) == 0o750
    blank = plan(tmp_path / "a b")
    script = write_scripts(blank, tmp_path)["infer.sh"]
    done = subprocess.run(
        [*arguments[:1], str(script), *arguments[2:]], capture_output=True, text=True
    )
    assert "[Warning] ais_bench refuses paths" in done.stderr and "a b/om" in done.stderr


def test_infer_sh_of_a_dynamic_om_with_aipp_sets_the_batch_and_makes_uint8_files(
    tmp_path: Path,
) -> None:
    made = plan(tmp_path, dynamic=True, aipp=True, batches=(1, 8))
    text = infer_script(made, REPO)
    assert "--model hrnet_dynamic.om --dymBatch 8 " in text
    assert 'ascend_convert.py" --onnx ../hrnet.onnx --uint8_bins "$pictures" inputs_uint8' in text
    assert "imagenet_torch_preprocess" not in text


def test_infer_sh_asks_for_pictures_of_the_models_own_size(tmp_path: Path) -> None:
    small = plan(tmp_path, image=ModelInput("image", None, 64))
    wanted = 'imagenet_torch_preprocess.py" hrnet "$pictures" inputs --image_size 64\n'
    assert wanted in infer_script(small, REPO)
