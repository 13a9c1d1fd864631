"""What tools/valid.py tells and computes beyond its plain run, against direct computation."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import VALID, Done, RunScript
from PIL import Image
from torch import nn
from torchvision import transforms

from lib.config.load import load_config
from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD
from lib.models.build import build_model

NAMES = ("c0", "other", "c1", "another", "c2", "third", "fourth")
PLAIN_KEYS = [
    "kind", "network", "config", "weights", "device", "cards", "batch_size", "precision",
    "images_per_s", "loss", "accuracy_top1", "accuracy_top5", "num_correct_top1",
    "num_correct_top5", "num_images_used", "num_images_expected", "num_images_not_finite",
    "num_bad_images", "duration_s",
    "recipe",
]  # fmt: skip


@pytest.fixture(scope="module")
def network(tiny_yaml: Path) -> nn.Module:
    """A network whose seven outputs all win for some picture."""
    torch.manual_seed(3)
    network = build_model(load_config(tiny_yaml), len(NAMES))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
        network.classifier.weight.mul_(400)
    return network.eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "named.pth"
    torch.save({"state_dict": network.state_dict(), "class_names": list(NAMES)}, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the seven classes; pictures that are not their own mirror images, and wide."""
    root = tmp_path_factory.mktemp("some classes")
    generator, number = np.random.default_rng(0), 0
    for name, num_images in (("c0", 5), ("c1", 4), ("c2", 4)):
        folder = root / "val" / name
        folder.mkdir(parents=True)
        for _ in range(num_images):
            number += 1
            small = Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8))
            picture = small.resize((140, 100), Image.Resampling.BICUBIC)
            picture.save(folder / f"ILSVRC2012_val_{number:08d}.png")
    return root


@pytest.fixture(scope="module")
def real(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ReaL labels: two for each of the pictures but the third, which has none."""
    labels: list[list[int]] = [[number % 7, (number + 2) % 7] for number in range(13)]
    labels[2] = []
    path = tmp_path_factory.mktemp("labels") / "real.json"
    path.write_text(json.dumps(labels + [[0]] * (50_000 - 13)))
    return path


def direct_logits(network: nn.Module, data: Path, *, resize: int = 73, crop: int = 64) -> tuple:
    """(logits, targets among NAMES) of the pictures in their order, by torchvision's transforms."""
    prepare = transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    paths = sorted((data / "val").glob("*/*.png"))
    with torch.inference_mode():
        images = torch.stack([prepare(Image.open(path)) for path in paths])
        logits = torch.stack([network(images), network(images.flip(3))])
    return logits, torch.tensor([NAMES.index(path.parent.name) for path in paths])


def evaluated(
    run: RunScript, data: Path, tiny_yaml: Path, weights: Path, out: Path, *arguments: object,
    exit_code: int = 0,
) -> Done:  # fmt: skip
    done = run(
        VALID, data, "--cfg", tiny_yaml, "--testModel", weights, "--out", out,
        "--predictions", out / "predictions.csv", *arguments,
    )  # fmt: skip
    assert done.returncode == exit_code, done.stderr
    return done


def _be_rank(rank: int, port: int, run: RunScript, *arguments: object) -> None:
    """Be one of two processes, as torchrun starts them."""
    variables = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    os.environ.update({name: str(value) for name, value in variables.items()})
    done = run(VALID, *arguments)
    print(done.stderr, file=sys.__stderr__, flush=True)
    os._exit(done.returncode)


@pytest.fixture
def run_twice(run_script: RunScript) -> RunScript:
    """Run an entry script on two processes, which are forked: that saves loading torch twice."""

    def run(_: str, *arguments: object) -> Done:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        ranks = [
            fork.Process(target=_be_rank, args=(rank, port, run_script, *arguments))
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(120)
            if process.is_alive():
                process.kill()
        exit_codes = [process.exitcode for process in ranks]
        return Done(0 if exit_codes == [0, 0] else 1, "", f"exit codes {exit_codes}")

    return run


def result_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "result.json").read_text())


def table_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_agrees(folder: Path, logits: torch.Tensor, targets: torch.Tensor, names: tuple) -> None:
    """The figures and the table are those of these logits."""
    best = logits.argmax(dim=1)
    result, rows = result_of(folder), table_of(folder)
    assert result["num_correct_top1"] == int((best == targets).sum())
    loss = nn.functional.cross_entropy(logits, targets)
    assert result["loss"] == pytest.approx(float(loss), abs=2e-3)
    assert [row["class"] for row in rows] == [names[target] for target in targets]
    assert [row["predicted_1"] for row in rows] == [names[index] for index in best]
    shares = logits.softmax(dim=1).max(dim=1).values.tolist()
    assert [float(row["probability_1"]) for row in rows] == pytest.approx(shares, abs=1e-3)


def test_the_plain_run_has_the_keys_that_it_had(
    data: Path, tiny_yaml: Path, weights: Path, network: nn.Module, run_script: RunScript,
    tmp_path: Path,
) -> None:  # fmt: skip
    done = evaluated(run_script, data, tiny_yaml, weights, tmp_path)
    assert list(result_of(tmp_path)) == PLAIN_KEYS
    assert len(done.stdout.splitlines()) == 7 and done.stdout.splitlines()[-1].startswith("Test: ")
    logits, targets = direct_logits(network, data)
    assert_agrees(tmp_path, logits[0], targets, NAMES)
    files = [row["file"] for row in table_of(tmp_path)]
    assert files[0] == "val/c0/ILSVRC2012_val_00000001.png" and len(set(files)) == 13


def test_flip_gives_the_mean_of_the_logits_of_the_pictures_and_their_mirror_images(
    data: Path, tiny_yaml: Path, weights: Path, network: nn.Module, run_script: RunScript,
    tmp_path: Path,
) -> None:  # fmt: skip
    evaluated(run_script, data, tiny_yaml, weights, tmp_path, "TEST.FLIP", "true")
    (plain, mirrored), targets = direct_logits(network, data)
    assert (plain - mirrored).abs().max() > 0.1
    assert_agrees(tmp_path, (plain + mirrored) / 2, targets, NAMES)
    assert result_of(tmp_path)["flip"].startswith("mean of the logits")


@pytest.mark.parametrize(
    ("settings", "resize", "crop"),
    [
        (("TEST.IMAGE_SIZE", "96"), 109, 96),
        (("TEST.IMAGE_SIZE", "96", "TEST.RESIZE", "96"), 96, 96),
        (("TEST.RESIZE", "64"), 64, 64),
    ],
)
def test_another_size_gives_what_that_size_gives_directly(
    settings: tuple[str, ...], resize: int, crop: int, data: Path, tiny_yaml: Path, weights: Path,
    network: nn.Module, run_script: RunScript, tmp_path: Path,
) -> None:  # fmt: skip
    evaluated(run_script, data, tiny_yaml, weights, tmp_path, *settings)
    logits, targets = direct_logits(network, data, resize=resize, crop=crop)
    assert_agrees(tmp_path, logits[0], targets, NAMES)
    assert (result_of(tmp_path)["resize"], result_of(tmp_path)["image_size"]) == (resize, crop)


def test_a_subset_gives_the_best_of_the_classes_that_have_pictures(
    data: Path, tiny_yaml: Path, weights: Path, network: nn.Module, run_script: RunScript,
    tmp_path: Path,
) -> None:  # fmt: skip
    done = evaluated(
        run_script, data, tiny_yaml, weights, tmp_path, "--subset", "--per_class", "--confusion"
    )
    logits, targets = direct_logits(network, data)
    masked = logits[0].clone()
    masked[:, [1, 3, 5, 6]] = float("-inf")
    assert (masked.argmax(dim=1) != logits[0].argmax(dim=1)).any()
    assert_agrees(tmp_path, masked, targets, NAMES)
    assert "subset: 3 of the network's 7 outputs are compared\n" in done.stdout
    assert result_of(tmp_path)["num_outputs_compared"] == 3
    rows = (tmp_path / "per_class.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["c0", "5"], ["c1", "4"], ["c2", "4"]]


def test_the_table_names_no_class_where_the_outputs_are_nan(
    data: Path, tiny_yaml: Path, network: nn.Module, run_script: RunScript, tmp_path: Path
) -> None:
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    weights["classifier.bias"][0] = float("nan")
    torch.save({"state_dict": weights, "class_names": list(NAMES)}, tmp_path / "nan.pth")
    done = evaluated(run_script, data, tiny_yaml, tmp_path / "nan.pth", tmp_path, exit_code=1)
    rows = table_of(tmp_path)
    assert len(rows) == 13 and all(row["class"] and row["file"] for row in rows)
    columns = rows[0].keys() - {"class", "file"}
    assert len(columns) == 10 and {row[name] for row in rows for name in columns} == {""}
    assert done.stdout.count("[Warning]") == 2, "once of the weights, once of what came of them"
    assert f"{tmp_path / 'predictions.csv'} names no class for such images" in done.stdout


def test_numbered_folders_and_bare_weights_give_the_figures_of_named_ones(
    data: Path, tiny_yaml: Path, weights: Path, network: nn.Module, run_script: RunScript,
    tmp_path: Path,
) -> None:  # fmt: skip
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    for name in ("c0", "c1", "c2"):
        number = str(NAMES.index(name))
        shutil.copytree(data / "val" / name, tmp_path / "v2" / "matched" / number)
    evaluated(
        run_script, tmp_path / "v2", tiny_yaml, tmp_path / "bare.pth", tmp_path / "e",
        "--class_map", "numbers", "--subset", "DATASET.TEST_SET", "matched",
    )  # fmt: skip
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    evaluated(
        run_script, data, tiny_yaml, tmp_path / "bare.pth", tmp_path / "f",
        "--train_classes", tmp_path / "names.txt", "--subset",
    )  # fmt: skip
    numbered, named = result_of(tmp_path / "e"), result_of(tmp_path / "f")
    for key in ("loss", "num_correct_top1", "num_correct_top5", "num_outputs_compared"):
        assert numbered[key] == named[key]


def test_all_of_it_together_is_the_same_on_two_processes_and_the_last_line_stays_the_last(
    data: Path, tiny_yaml: Path, weights: Path, network: nn.Module, real: Path,
    run_script: RunScript, run_twice: RunScript, tmp_path: Path,
) -> None:  # fmt: skip
    """Pitfall 18: 13 pictures, which 2 does not divide."""
    pytest.importorskip("torchmetrics", reason="what measures the calibration is not installed")
    wanted = ("--real", real, "--calibration", "--subset", "TEST.FLIP", "true")
    done = evaluated(run_script, data, tiny_yaml, weights, tmp_path / "1", *wanted)
    evaluated(run_twice, data, tiny_yaml, weights, tmp_path / "2", *wanted)
    one, two = result_of(tmp_path / "1"), result_of(tmp_path / "2")
    for key in one.keys() - {"cards", "images_per_s", "duration_s"}:
        assert one[key] == two[key], key
    assert two["cards"] == 2
    assert table_of(tmp_path / "1") == table_of(tmp_path / "2")
    assert (tmp_path / "2" / "reliability.png").read_bytes()[:4] == b"\x89PNG"

    (plain, mirrored), _ = direct_logits(network, data)
    masked = (plain + mirrored) / 2
    masked[:, [1, 3, 5, 6]] = float("-inf")
    best = masked.argmax(dim=1).tolist()
    right = [b in (i % 7, (i + 2) % 7) for i, b in enumerate(best) if i != 2]
    assert one["num_images_real"] == 12
    assert one["num_correct_real"] == sum(right)
    shares = masked.softmax(dim=1).max(dim=1).values
    assert one["mean_confidence"] == pytest.approx(float(shares.mean()), abs=1e-3)
    assert 0 <= one["calibration_error"] <= 1

    lines = done.stdout.splitlines()
    assert f"ReaL labels: {one['accuracy_real']:.3f} % of 12 images right" in lines
    assert f"{one['accuracy_top1']:.3f}" == lines[-1].split()[10]
    assert not any("Accuracy@1" in line or "Test" in line for line in lines[:-1])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--real", "absent.json"), "no such file of ReaL labels: absent.json"),
        (("--class_map", "absent.txt"), "no such class map: absent.txt"),
        (
            ("--class_map", "numbers"),
            "class folders have names that are no numbers: 'c0', 'c1', 'c2'",
        ),
        (("--train_classes", "absent"), "no such folder or list of class names: absent"),
        (("--predictions", "."), "directory"),
        (("TEST.IMAGE_SIZE", "100"), "TEST.IMAGE_SIZE: 100 must be a multiple of 32"),
        (("TEST.RESIZE", "32"), "TEST.RESIZE: 32 is below the crop of 64 pixels"),
        (("TEST.FLIP", "2"), "TEST.FLIP"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, str], named: str, data: Path, tiny_yaml: Path, weights: Path,
    run_script: RunScript, tmp_path: Path,
) -> None:  # fmt: skip
    done = run_script(
        VALID, data, "--cfg", tiny_yaml, "--testModel", weights, "--out", tmp_path / "out",
        *arguments, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("[Error] ") and done.stderr.count("\n") == 1
    assert named in done.stderr
