"""lib/models/resolver.py: one answer for every program that uses weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import REPO, RunScript, write_pictures

from lib.config.load import load_config
from lib.config.recipe import Recipe
from lib.models import resolver
from lib.models.build import build_model
from lib.models.resolver import facts_of, resolve
from lib.models.weights.facts import with_facts
from lib.models.weights.torch_file import save_atomically

NAMES = ("dog", "cat")  # not in sorted order
SIZES = ["MODEL.IMAGE_SIZE", "[32, 32]", "TEST.RESIZE", "40"]
TRAINED = Recipe(resize=40, crop=32)
VALID, PREDICT, EXPORT = "tools/valid.py", "tools/predict.py", "hrnet_pth2onnx.py"


@pytest.fixture(scope="module")
def run(tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    config = load_config(tiny_yaml, SIZES)
    torch.manual_seed(3)
    network = build_model(config, len(NAMES))
    torch.nn.init.normal_(network.classifier.weight)
    weights = with_facts(network.state_dict(), facts_of(config, NAMES))
    save_atomically(weights, folder / "model_best.pth.tar")
    (folder / "config.yaml").write_text(config.dump())
    (folder / "classes.json").write_text(json.dumps({n: i for i, n in enumerate(NAMES)}))
    return folder


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """The weights without the files beside them."""
    (tmp_path / "alone").mkdir()
    return Path(shutil.copy(run / "model_best.pth.tar", tmp_path / "alone" / "w.pth"))


@pytest.fixture
def older(run: Path, tmp_path: Path) -> Path:
    """The same as releases before this one wrote it: nothing in the file itself."""
    folder = tmp_path / "older"
    shutil.copytree(run, folder)
    weights = dict(torch.load(run / "model_best.pth.tar", weights_only=True))
    save_atomically(weights, folder / "model_best.pth.tar")
    return folder


def test_the_record_travels_with_bare_weights(run: Path, alone: Path) -> None:
    """Fault S3: the file alone says what it was trained at; to others it is a bare state_dict."""
    content = torch.load(alone, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in content.values())
    found = resolve(alone)
    assert (found.recipe, found.class_names) == (TRAINED, NAMES)
    assert found.recipe == resolve(run / "model_best.pth.tar").recipe
    assert any("32 x 32 of a short side of 40" in line for line in found.lines)
    assert any("record in the weights" in line for line in found.lines)


def test_the_yaml_beside_the_weights_counts_where_they_have_no_record(older: Path) -> None:
    """Fault S3."""
    found = resolve(older / "model_best.pth.tar")
    assert (found.recipe, found.class_names) == (TRAINED, NAMES)
    assert any(str(older / "config.yaml") in line for line in found.lines)
    shutil.move(older / "model_best.pth.tar", older.parent / "bare.pth")
    assumed = resolve(older.parent / "bare.pth")
    assert assumed.recipe == Recipe() and assumed.class_names is None
    assert any(line.startswith("[Warning] input 224 x 224") for line in assumed.lines)


def test_a_yaml_that_contradicts_the_record_is_refused(
    run: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """Fault S3."""
    weights = run / "model_best.pth.tar"
    with pytest.raises(ValueError, match=r"contradicts.*73 for 40, crop 64 for 32") as caught:
        resolve(weights, cfg=tiny_yaml)
    fix = str(caught.value).partition("what you want with ")[2].split()
    assert resolve(weights, cfg=tiny_yaml, overrides=fix).recipe == TRAINED
    small = REPO / "experiments/cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    with pytest.raises(ValueError, match="of hrnet_w18_small_v1, and the weights"):
        resolve(weights, cfg=small, overrides=SIZES)
    chosen = tmp_path / "chosen.yaml"
    chosen.write_text(load_config(tiny_yaml, [*SIZES, "TEST.RESIZE", "48"]).dump())
    found = resolve(weights, cfg=chosen)
    assert found.recipe == Recipe(resize=48, crop=32)
    assert any("resize 48 for 40" in line for line in found.lines)


def test_keys_of_the_command_line_come_first(alone: Path) -> None:
    found = resolve(alone, overrides=["TEST.IMAGE_SIZE", "64"])
    assert found.recipe == Recipe.for_crop(64)
    assert any("by TEST.IMAGE_SIZE" in line for line in found.lines)
    assert resolve(alone, overrides=["TEST.RESIZE", "36"]).recipe == Recipe.for_crop(32)


def test_a_yaml_of_other_weights_beside_a_record_is_said_and_left(
    run: Path, older: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "mixed")
    other = load_config(None, ["MODEL.NAME", "hrnet_w48"]).dump()
    (tmp_path / "mixed" / "config.yaml").write_text(other)
    found = resolve(tmp_path / "mixed" / "model_best.pth.tar")
    assert found.recipe == TRAINED
    assert any("is of hrnet_w48" in line and "not used" in line for line in found.lines)
    (older / "config.yaml").write_text(other)
    with pytest.raises(ValueError, match="is of hrnet_w48.*take it away"):
        resolve(older / "model_best.pth.tar")


def test_means_of_a_record_reach_the_network(run: Path, tmp_path: Path) -> None:
    """Fault S3: a recipe that no yaml can say is heeded all the same."""
    weights = torch.load(run / "model_best.pth.tar", weights_only=True)
    recipe = Recipe(resize=40, crop=32, mean=(0.5, 0.5, 0.5), interpolation="bicubic")
    save_atomically(with_facts(dict(weights), {"recipe": recipe.as_json()}), tmp_path / "w.pth")
    assert resolve(tmp_path / "w.pth").recipe == recipe
    recipe = {"resize": 40, "crop": 32, "channels": "BGR"}
    save_atomically(with_facts(dict(weights), {"recipe": recipe}), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="BGR pictures"):
        resolve(tmp_path / "w.pth")


def test_published_weights_are_fed_as_published(
    alone: Path, monkeypatch: pytest.MonkeyPatch, tiny_yaml: Path
) -> None:
    bare = alone.with_name("bare.pth")
    save_atomically(dict(torch.load(alone, weights_only=True)), bare)
    read = resolver.read_weights
    monkeypatch.setattr(resolver, "read_weights", lambda weights: read(bare))
    found = resolve("hrnet_w18.timm")
    assert (found.recipe.crop, found.recipe.resize) == (224, 235)
    assert any("as timm publishes hrnet_w18.timm" in line for line in found.lines)
    assert resolve("hrnet_w18.timm", cfg=tiny_yaml).recipe == Recipe.for_crop(64)


def test_all_programs_use_weights_alone_as_in_their_run(
    run: Path, alone: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Faults S2, S3 and S4: evaluation, prediction and export agree, wherever the file lies."""
    for number, name in enumerate(("cat", "dog")):
        write_pictures(tmp_path / "data" / "val" / name, 4, channel=number)
    figures, shares = [], []
    for weights in (run / "model_best.pth.tar", alone):
        out = tmp_path / f"out{len(figures)}"
        done = run_script(VALID, tmp_path / "data", "--testModel", weights, "--out", out)
        assert done.returncode == 0, done.stderr
        result = json.loads((out / "result.json").read_text())
        assert result["recipe"] == TRAINED.as_json()
        figures.append((result["loss"], result["num_correct_top1"]))
        table = out / "p.json"
        pictures = tmp_path / "data" / "val"
        done = run_script(PREDICT, pictures, "--checkpoint", weights, "--out", table)
        assert done.returncode == 0, done.stderr
        shares.append(table.read_text())
        onnx = out / "m.onnx"
        done = run_script(EXPORT, "--input", weights, "--output", onnx, "--batch", 1)
        assert done.returncode == 0, done.stderr
        receipt = json.loads(onnx.with_suffix(".receipt.json").read_text())
        assert receipt["recipe"] == TRAINED.as_json()
        assert receipt["input_shape"] == [1, 3, 32, 32]
    assert figures[0] == figures[1] and shares[0] == shares[1]


def test_mirror_images_are_recorded_too(tiny_yaml: Path, tmp_path: Path) -> None:
    """Fault S3: they change an evaluation as the size does."""
    config = load_config(tiny_yaml, [*SIZES, "TEST.FLIP", "true"])
    weights = build_model(config, 2).state_dict()
    save_atomically(with_facts(weights, facts_of(config, NAMES)), tmp_path / "w.pth")
    assert resolve(tmp_path / "w.pth").config.TEST.FLIP
    assert not resolve(tmp_path / "w.pth", overrides=["TEST.FLIP", "false"]).config.TEST.FLIP
    plain = tmp_path / "plain.yaml"
    plain.write_text(load_config(tiny_yaml, SIZES).dump())
    with pytest.raises(ValueError, match="TEST.FLIP false for true"):
        resolve(tmp_path / "w.pth", cfg=plain)


def test_an_export_refuses_what_it_cannot_do(alone: Path, run_script: RunScript) -> None:
    """Fault S4: mirror images change an evaluation, and no ONNX file computes them."""
    onnx = alone.with_name("m.onnx")
    done = run_script(EXPORT, "--input", alone, "--output", onnx, "TEST.FLIP", "true")
    assert done.returncode == 2 and "TEST.FLIP false" in done.stderr
    assert not onnx.exists()


def test_the_order_of_the_classes_is_said(
    run: Path, older: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """Fault S2."""
    for number, name in enumerate(("cat", "dog")):
        write_pictures(tmp_path / "data" / "val" / name, 2, channel=number)
    options = ("--out", tmp_path / "out", "--testModel")
    done = run_script(VALID, tmp_path / "data", *options, run / "model_best.pth.tar")
    assert "classes 2, named by" in done.stdout and "assumed" not in done.stdout
    (older / "classes.json").unlink()
    done = run_script(VALID, tmp_path / "data", *options, older / "model_best.pth.tar")
    assert "class order assumed: the sorted names of the class folders" in done.stdout
