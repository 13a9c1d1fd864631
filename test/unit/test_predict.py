"""tools/predict.py and lib/predict."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO, RunScript, write_pictures
from PIL import Image
from range_server import WeightHandler, serving

from lib.config.load import load_config
from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.evaluation.predict import cam, writing
from lib.evaluation.predict.inputs import expand
from lib.evaluation.predict.sheet import Sheet
from lib.models.build import build_model, network_spec
from lib.models.guess import guess_arch, guess_spec
from lib.models.hrnet import ARCHS, build_hrnet
from lib.models.weights.torch_file import save_atomically
from lib.report.plots.sheet import Tile

PREDICT = "tools/predict.py"
NAMES = ("cat", "dog, hot", "owl")


@pytest.fixture(scope="module")
def network(tiny_yaml: Path) -> torch.nn.Module:
    """A tiny network of three classes that are far apart."""
    torch.manual_seed(3)
    network = build_model(load_config(tiny_yaml), 3).eval()
    torch.nn.init.normal_(network.classifier.weight)
    return network


@pytest.fixture
def run(network: torch.nn.Module, tiny_yaml: Path, tmp_path: Path) -> Path:
    """A run folder with these weights, and pictures beside it."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_atomically(network.state_dict(), folder / "model_best.pth.tar")
    (folder / "config.yaml").write_text(load_config(tiny_yaml).dump())
    (folder / "classes.json").write_text(json.dumps({n: i for i, n in enumerate(NAMES)}))
    for channel in range(3):
        write_pictures(tmp_path / "pictures" / str(channel), 3, channel=channel)
    return folder


def shares_of(path: str | Path, network: torch.nn.Module) -> torch.Tensor:
    """The softmax of one picture, computed by hand."""
    pixels = eval_pixels(open_rgb(path), Recipe.for_crop(64))
    with torch.no_grad():
        return network(torch.from_numpy(normalize(pixels))[None]).softmax(1)[0]


def test_weights_are_taken_from_an_address(
    run: Path, tiny_yaml: Path, run_script: RunScript, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("http_proxy", raising=False)
    with serving(run, WeightHandler) as server:
        url = f"{server.url}/model_best.pth.tar"
        done = run_script(
            PREDICT, tmp_path / "pictures", "--checkpoint", url, "--cfg", tiny_yaml,
            "--device", "cpu", "--workers", 0,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "downloading model_best.pth.tar" in done.stderr and url in done.stderr
    assert str(tmp_path / "torch") in done.stdout


def test_csv_json_and_lines_say_what_the_network_says(
    run: Path, network: torch.nn.Module, run_script: RunScript, tmp_path: Path
) -> None:
    weights, done = run / "model_best.pth.tar", {}
    for name in ("out.csv", "sub folder/out.json"):
        done = run_script(
            PREDICT, tmp_path / "pictures", "--checkpoint", weights, "--out", tmp_path / name,
            "--topk", 2, "--bs", 4,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "sub folder" / "out.json").read_text())
    assert [row["file"] for row in rows] == sorted(map(str, (tmp_path / "pictures").rglob("*.png")))
    with open(tmp_path / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for row, cells in zip(rows, table, strict=True):
        shares, best = shares_of(row["file"], network).topk(2)
        assert [guess["index"] for guess in row["predictions"]] == best.tolist()
        assert [guess["class"] for guess in row["predictions"]] == [NAMES[i] for i in best]
        told = [guess["probability"] for guess in row["predictions"]]
        assert told == pytest.approx(shares.tolist(), abs=2e-6)
        assert cells["file"] == row["file"] and cells["error"] == ""
        assert [cells["class_1"], cells["class_2"]] == [NAMES[i] for i in best]
        assert float(cells["probability_1"]) == told[0]
        said = f"{row['file']}  {NAMES[best[0]]} {100 * told[0]:.1f} %"
        assert [line for line in done.stdout.splitlines() if line.startswith(said)]


def test_a_file_that_is_no_picture_is_named_and_the_rest_is_done(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    bad = tmp_path / "pictures" / "1" / "1.png"
    bad.write_bytes(b"no picture")
    done = run_script(
        PREDICT, tmp_path / "pictures", "--checkpoint", run / "model_best.pth.tar",
        "--out", tmp_path / "out.csv", "--show", tmp_path / "out.png",
    )  # fmt: skip
    assert done.returncode == 1
    assert f"1 of 9 pictures cannot be read: '{bad}'" in done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table if row["error"]] == [str(bad)]
    assert [row["file"] for row in table if row["class_1"]] == [
        row["file"] for row in table if row["file"] != str(bad)
    ]
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_not_finite_are_no_class(
    spoiled: float, run: Path, network: torch.nn.Module, run_script: RunScript, tmp_path: Path
) -> None:
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    weights["classifier.bias"][1] = spoiled
    save_atomically(weights, run / "model_best.pth.tar")
    (tmp_path / "pictures" / "0" / "0.png").write_bytes(b"no picture")
    for name in ("out.csv", "out.json"):
        done = run_script(
            PREDICT, tmp_path / "pictures", "--checkpoint", run / "model_best.pth.tar",
            "--out", tmp_path / name, "--show", tmp_path / "out.png",
        )  # fmt: skip
        assert done.returncode == 1
        assert "1 of 9 pictures cannot be read: " in done.stderr
        assert "8 of 9 pictures have no class, since the network's outputs are NaN" in done.stderr
        assert done.stderr.count("\n") == 1 and "nan %" not in done.stdout

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    rows = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    assert len(rows) == 9 and not any("predictions" in row for row in rows)
    with open(tmp_path / "out.csv", newline="") as file:
        assert all(row["error"] and not row["class_1"] for row in csv.DictReader(file))


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_stop_keeps_what_was_predicted(
    ending: str, run: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, out, told = writing.line, tmp_path / f"out.{ending}", []

    def stop_at_the_third(row: writing.Row, width: int) -> str:
        told.append(row.path)
        if len(told) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return line(row, width)

    monkeypatch.setattr(writing, "line", stop_at_the_third)
    done = run_script(
        PREDICT, tmp_path / "pictures", "--checkpoint", run / "model_best.pth.tar",
        "--out", out, "--bs", 2,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGINT
    assert "stopped by Ctrl-C" in done.stderr
    with open(out, newline="") as file:
        kept = json.load(file) if ending == "json" else list(csv.DictReader(file))
    assert [row["file"] for row in kept] == told and len(told) == 4  # the batch is ended


def test_names_come_from_the_file_or_from_imagenet_or_are_numbers(
    run: Path, network: torch.nn.Module, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    picture = tmp_path / "pictures" / "0" / "0.png"
    alone = tmp_path / "alone" / "weights.pth"
    alone.parent.mkdir()

    def predict() -> str:
        done = run_script(PREDICT, picture, "--checkpoint", alone, "--cfg", tiny_yaml)
        assert done.returncode == 0, done.stderr
        return done.stdout

    save_atomically({"state_dict": network.state_dict(), "class_names": ["x", "y", "z"]}, alone)
    assert all(f"{name} " in predict() for name in "xyz")
    save_atomically(network.state_dict(), alone)
    said = predict()
    assert "[Warning] no class names" in said and "class 2 " in said
    save_atomically(build_model(load_config(tiny_yaml), 1000).state_dict(), alone)
    from torchvision.models import ResNet18_Weights

    said = predict()
    names = ResNet18_Weights.DEFAULT.meta["categories"]
    assert "classes: ImageNet's" in said
    assert any(f"0.png  {name} " in said for name in names)


def test_imagenet_classes_are_numbers_where_torchvision_is_missing(
    tiny_yaml: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)
    save_atomically(build_model(load_config(tiny_yaml), 1000).state_dict(), tmp_path / "w.pth")
    write_pictures(tmp_path, 1)
    done = run_script(
        PREDICT, tmp_path / "0.png", "--checkpoint", tmp_path / "w.pth", "--cfg", tiny_yaml
    )
    assert done.returncode == 0 and "pip install torchvision" in done.stdout


@pytest.mark.parametrize("name", ["hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w48"])
def test_a_published_network_is_told_by_the_shapes_of_its_weights(name: str) -> None:
    with torch.device("meta"):
        weights = build_hrnet(ARCHS[name], 7).state_dict()
    assert guess_arch(weights) == name
    del weights["stage4.0.branches.0.0.conv1.weight"]
    assert guess_arch(weights) is None


def test_any_hrnet_is_told_by_the_shapes_of_its_weights(
    network: torch.nn.Module, tiny_yaml: Path, run_script: RunScript, tmp_path: Path
) -> None:
    assert guess_spec(network.state_dict()) == network_spec(load_config(tiny_yaml))
    assert guess_spec({"fc.weight": torch.ones(1)}) is None
    save_atomically(network.state_dict(), tmp_path / "w.pth")
    write_pictures(tmp_path, 1)
    done = run_script(
        PREDICT, tmp_path / "0.png", "--checkpoint", tmp_path / "w.pth", "--image_size", 64
    )
    assert done.returncode == 0, done.stderr
    assert "network of no published form (by the weights' shapes)" in done.stdout
    best = int(shares_of(tmp_path / "0.png", network).argmax())
    assert f"0.png  class {best} " in done.stdout


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("nowhere.png",), "no picture is there under the name 'nowhere.png'"),
        (("*.gif",), "no picture fits the pattern '*.gif'"),
        (("empty",), "'empty' holds no pictures"),
        (("0.png", "--checkpoint", "no.pth"), "no such weight file: no.pth"),
        (("0.png", "--out", "x.txt"), "--out x.txt: its ending must be one of .csv, .json"),
        (("0.png", "--show", "x.jpg"), "--show x.jpg: its ending must be .png"),
        (("0.png", "--cam"), "--cam needs --show"),
        (("0.png", "--cam_layer", "branch2"), "--cam_layer branch2 needs --cam"),
        (("0.png", "--topk", "0"), "--topk 0: 1 or more is needed"),
        (("0.png", "--checkpoint", "odd/w.pth"), "has 3 classes, and odd/classes.json names"),
        (("0.png", "--checkpoint", "bare/w.pth"), "has not the names of an HRNet's weights"),
        (("0.png", "--checkpoint", "named/w.pth"), "has 3 classes and 2 names for them"),
        (("0.png", "--cfg", "seven.yaml"), "MODEL.NUM_CLASSES (by seven.yaml) is 7"),
        (("0.png", "--image_size", "50"), "MODEL.IMAGE_SIZE: [50, 50] must be two equal multiples"),
        (("0.png", "--device", "cuda", "--device_id", "99"), "--device"),
    ],
)
def test_wrong_input_is_one_line(
    words: tuple[str, ...], pattern: str, run: Path, network: torch.nn.Module, tiny_yaml: Path,
    run_script: RunScript, tmp_path: Path,
) -> None:  # fmt: skip
    write_pictures(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    for folder in ("odd", "bare", "named"):
        (tmp_path / folder).mkdir()
        save_atomically(network.state_dict(), tmp_path / folder / "w.pth")
    save_atomically({"classifier.weight": torch.ones(3, 2048)}, tmp_path / "bare" / "w.pth")
    content = {"state_dict": network.state_dict(), "class_names": ["a", "b"]}
    save_atomically(content, tmp_path / "named" / "w.pth")
    for folder in ("odd", "named"):
        (tmp_path / folder / "config.yaml").write_text(load_config(tiny_yaml).dump())
    (tmp_path / "odd" / "classes.json").write_text('{"a": 0}')
    yaml = tiny_yaml.read_text().replace("NAME: cls_hrnet", "NAME: cls_hrnet\n  NUM_CLASSES: 7")
    (tmp_path / "seven.yaml").write_text(yaml)
    weights = () if "--checkpoint" in words else ("--checkpoint", run / "model_best.pth.tar")
    done = run_script(PREDICT, *words, *weights, cwd=tmp_path)
    assert done.returncode == 2 and pattern in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("[Error] ")


def test_without_weights_the_command_line_says_what_it_needs(run_script: RunScript) -> None:
    done = run_script(PREDICT, REPO / "README.md")
    assert done.returncode == 2 and "--checkpoint" in done.stderr


def test_words_name_files_folders_and_patterns_each_picture_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "a" / "b", 2)
    (tmp_path / "a" / "b" / "[1].png").write_bytes((tmp_path / "a" / "b" / "1.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert expand(["a/b/1.png", "a", "a/**/*.png"])[0] == ("a/b/1.png", "a/b/0.png", "a/b/[1].png")
    assert expand(["a/b/1.png", "./a/b/1.png", "a/../a//b/1.png", os.path.abspath("a/b")])[0] == (
        "a/b/1.png", os.path.abspath("a/b/0.png"), os.path.abspath("a/b/[1].png"),
    )  # fmt: skip
    (tmp_path / "0.png").symlink_to("a/b/0.png")
    assert expand(["0.png", "a/b/0.png", "./0.png"])[0] == ("0.png", "a/b/0.png")
    assert expand(["a/b/[1].png"])[0] == ("a/b/[1].png",)  # a file, though it looks like a pattern
    assert expand(["a/b/[0-1].png"])[0] == ("a/b/0.png", "a/b/1.png")


def test_what_speaks_for_a_class_is_grad_cams_closed_form(network: torch.nn.Module) -> None:
    """Behind an average, the gradient's mean is the classifier's weight over the map's size."""
    images = torch.randn(3, 3, 64, 96)
    classes, maps = torch.tensor([0, 2, 1]), []
    handle = network.final_layer.register_forward_hook(lambda *args: maps.append(args[2]))
    with torch.no_grad():
        network(images)
    handle.remove()
    weights = network.classifier.weight.detach()[classes]
    expected = torch.einsum("nkhw,nk->nhw", maps[0], weights).relu()[:, None]
    size = {"size": (64, 96), "mode": "bilinear", "align_corners": False}
    expected = torch.nn.functional.interpolate(expected, **size)[:, 0].numpy()
    assert (expected.max(axis=(1, 2)) > 0).sum() >= 2
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-9)
    heat = cam.class_activations(network, images, classes)
    assert heat.shape == (3, 64, 96) and heat.min() >= 0 and heat.max() <= 1
    np.testing.assert_allclose(heat, expected, atol=1e-4)


def test_a_map_on_which_nothing_speaks_for_the_class_is_empty(network: torch.nn.Module) -> None:
    weight = network.classifier.weight.detach().clone()
    try:
        torch.nn.init.constant_(network.classifier.weight, -1.0)
        heat = cam.class_activations(network, torch.randn(1, 3, 64, 64), torch.tensor([0]))
    finally:
        network.classifier.weight.data.copy_(weight)
    assert heat.max() == 0


def test_the_sheet_has_the_pictures_themselves_and_their_maps_beside_them(
    run: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault V1: not the network's input of 64 pixels; a finer map where that is asked for."""
    drawn: list[list[Tile]] = []
    monkeypatch.setattr(
        "lib.evaluation.predict.sheet.save_sheet",
        lambda tiles, path, num_all: drawn.append(tiles) or "",
    )
    write_pictures(tmp_path / "large", 1, size=(600, 900))
    said = ""
    for words in ((), ("--cam",), ("--cam", "--cam_layer", "branch1")):
        done = run_script(
            PREDICT, tmp_path / "large", "--checkpoint", run / "model_best.pth.tar",
            "--show", tmp_path / "sheets" / "x.png", *words,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"written: {tmp_path / 'sheets' / 'x.png'}" in done.stdout
        said += done.stdout
    assert said.count("[Warning]") == 1
    assert "maps of --cam_layer final are 2 x 2 places for pictures of 64 pixels" in said
    plain, final, finer = (tile for (tile,) in drawn)
    assert plain.heat is None and plain.pixels.shape == (320, 480, 3)
    best = int(plain.class_number)
    assert plain.class_name == NAMES[best].replace("\n", " ")
    assert final.heat is not None and finer.heat is not None
    # 600 pixels are resized to 73, of which 64 are seen: 526 of the 900 beside them.
    left, top, right, bottom = final.heat.box
    assert (bottom - top) / 320 == pytest.approx(64 / 73, abs=0.01)
    assert left + right == pytest.approx(480, abs=5) and top + bottom == pytest.approx(320, abs=5)
    assert not np.array_equal(final.heat.map, finer.heat.map)


def test_a_picture_that_went_away_leaves_what_the_network_was_fed(tmp_path: Path) -> None:
    fed = torch.zeros(64, 64, 3, dtype=torch.uint8)
    guess = writing.Guess("owl", 2, 0.5)
    sheet = Sheet(Recipe.for_crop(64))
    tile = sheet.tile(fed, writing.Row(str(tmp_path / "gone.png"), (guess,)), None)
    assert tile.pixels.shape == (64, 64, 3) and (tile.class_name, tile.class_number) == ("owl", 2)


@pytest.mark.parametrize(
    ("crop", "layer", "is_coarse"),
    [(64, "final", True), (96, "branch4", True), (128, "final", False), (64, "branch3", False)],
)
def test_maps_of_fewer_than_4_x_4_places_are_told(crop: int, layer: str, is_coarse: bool) -> None:
    """Fault V1."""
    assert bool(cam.coarseness_remark(crop, layer)) is is_coarse


def test_each_layers_map_has_the_side_that_the_warning_says(network: torch.nn.Module) -> None:
    sides = []
    for layer in cam.LAYERS:
        handle = cam.module_of(network, layer).register_forward_hook(
            lambda module, inputs, output: sides.append(output.shape[-1])
        )
        with torch.no_grad():
            network(torch.zeros(1, 3, 128, 128))
        handle.remove()
        assert 128 // cam.STRIDES[layer] == sides[-1]
        heat = cam.class_activations(
            network, torch.randn(1, 3, 64, 64), torch.tensor([0]), layer=layer
        )
        assert heat.shape == (1, 64, 64)


def test_a_missing_captum_is_told_before_anything_is_computed(
    run: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run_script(
        PREDICT, tmp_path / "pictures", "--checkpoint", run / "model_best.pth.tar",
        "--show", tmp_path / "x.png", "--cam",
    )  # fmt: skip
    assert done.returncode == 2 and "pip install captum" in done.stderr
    assert done.stdout == ""


def test_no_input_is_written_over(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    """Fault L1."""
    weights, photo = run / "model_best.pth.tar", tmp_path / "pictures" / "0" / "0.png"
    (tmp_path / "link.png").symlink_to(photo)
    (tmp_path / "hard.png").hardlink_to(photo)
    before = {path: path.read_bytes() for path in (photo, weights, *run.glob("*.json"))}
    for option, path in (
        ("--show", photo),
        ("--show", tmp_path / "link.png"),
        ("--show", tmp_path / "hard.png"),
        ("--out", run / "classes.json"),
    ):
        done = run_script(
            PREDICT, tmp_path / "pictures", "--checkpoint", weights, option, path, "--workers", 0
        )
        assert done.returncode == 2 and f"{option} '{path}' is a file to read" in done.stderr
        assert before == {path: path.read_bytes() for path in before}


def test_a_sheet_among_the_pictures_is_not_predicted_next_time(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Fault L1."""
    folder, weights = tmp_path / "pictures", run / "model_best.pth.tar"
    words = (PREDICT, folder, "--checkpoint", weights, "--workers", 0, "--show")
    for name, said in (("a.png", ""), ("a.png", "1 drawings"), ("b.png", "1 drawings")):
        done = run_script(*words, folder / name)
        assert done.returncode == 0 and "; 9 pictures" in done.stdout, done.stderr
        assert said in done.stdout
    _, [line] = expand([str(folder)])
    assert line.startswith("2 drawings") and "a.png" in line and "b.png" in line
    assert expand([str(folder / "a.png")]) == ((str(folder / "a.png"),), [])  # where it is named


@pytest.mark.parametrize("ending", writing.ENDINGS)
def test_results_are_there_whole_or_not_at_all(tmp_path: Path, ending: str) -> None:
    """Fault L4."""
    path = tmp_path / f"p{ending}"
    path.write_text("of an earlier run")
    rows = [
        writing.Row("a.png", (writing.Guess("cat", 0, 0.5),)),
        writing.Row("b.png", error="cut"),
    ]
    with pytest.raises(MemoryError), writing.open_writer(path, 1) as writer:
        writer.write(rows)
        assert path.read_text() == "of an earlier run"  # what a SIGKILL would leave
        raise MemoryError
    assert path.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [path]
    with writing.open_writer(path, 1) as writer:
        for row in rows:
            writer.write([row])
    assert "of an earlier run" not in path.read_text() and "b.png" in path.read_text()
