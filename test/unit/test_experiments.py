"""The yaml files in experiments/: each name tells the truth, each header says how to run it."""

import re
from pathlib import Path

import pytest
import yaml
from published import PUBLISHED

from lib.config.load import load_config
from lib.models.hrnet import find_spec

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
PATHS = sorted(FOLDER.glob("cls_hrnet_*_x100.yaml"))
NAME = re.compile(
    r"cls_(?P<network>hrnet_w\w+?)_(?P<optimizer>[a-z]+)_lr(?P<lr>\d+e-\d+)_wd(?P<wd>\d+e-\d+)"
    r"_bs(?P<batch_size>\d+)_x(?P<epochs>\d+)\.yaml"
)
# Top-1 and top-5 error in percent: README of HRNet/HRNet-Image-Classification.
PUBLISHED_ERRORS = {
    "hrnet_w18_small_v1": (27.7, 9.3),
    "hrnet_w18_small_v2": (24.9, 7.6),
    "hrnet_w18": (23.2, 6.6),
    "hrnet_w30": (21.8, 5.8),
    "hrnet_w32": (21.5, 5.8),
    "hrnet_w40": (21.1, 5.5),
    "hrnet_w44": (21.1, 5.6),
    "hrnet_w48": (20.7, 5.5),
    "hrnet_w64": (20.5, 5.4),
}
# Top-1 in percent: the READMEs of HRNet/HRNet-Image-Classification and of PaddleClas.
STRONGER = {
    "cls_hrnet_w18_cosine_cutmix_x300": ("hrnet_w18", (77.9,)),
    "cls_hrnet_w48_cosine_cutmix_x300": ("hrnet_w48", (81.1,)),
    "cls_hrnet_w18_ssld": ("hrnet_w18", (81.2,)),
    "cls_hrnet_w48_ssld": ("hrnet_w48", (83.6,)),
}
each_stronger = pytest.mark.parametrize("name", STRONGER)
each_file = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def _network(path: Path) -> str:
    matched = NAME.fullmatch(path.name)
    assert matched, f"{path.name} does not follow the naming scheme"
    return matched["network"]


def test_there_is_one_file_for_each_published_network():
    official = {f"cls_{name}_sgd_lr5e-2_wd1e-4_bs32_x100.yaml" for name in PUBLISHED}
    assert official == {path.name for path in PATHS}


@each_file
def test_what_a_name_says_is_what_the_configuration_holds(path):
    """Pitfall 8: a yaml's name agrees with its content."""
    promised, config = NAME.fullmatch(path.name), load_config(path)
    assert promised["network"] == config.MODEL.NAME
    assert promised["optimizer"] == config.TRAIN.OPTIMIZER
    assert float(promised["lr"]) == config.TRAIN.LR
    assert float(promised["wd"]) == config.TRAIN.WD
    assert int(promised["batch_size"]) == config.TRAIN.BATCH_SIZE_PER_GPU
    assert int(promised["epochs"]) == config.TRAIN.END_EPOCH
    find_spec(config.MODEL.NAME)


@each_file
def test_what_a_name_says_stands_in_that_very_file(path):
    """Pitfall 8: no need to look into a base to check a name."""
    own = yaml.safe_load(path.read_text())
    assert own["MODEL"]["NAME"] == _network(path)
    said = {"OPTIMIZER", "LR", "WD", "BATCH_SIZE_PER_GPU", "END_EPOCH"}
    assert said <= set(own["TRAIN"])


@each_file
def test_the_rest_of_the_recipe_is_the_published_one(path):
    """Pitfall 4: no recipe continues an old run by itself."""
    config = load_config(path)
    assert config.TRAIN.LR_STEP == [30, 60, 90]
    assert config.TRAIN.LR_FACTOR == 0.1
    assert config.TRAIN.MOMENTUM == 0.9
    assert config.TRAIN.NESTEROV is True
    assert config.TRAIN.RESUME is False
    assert config.MODEL.IMAGE_SIZE == [224, 224]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.name)
def test_no_file_names_an_absolute_path(path):
    """Pitfall 8: no absolute paths in experiments/."""
    tokens = re.split(r"[\s'\":,\[\]()]+", path.read_text())
    bad = [token for token in tokens if re.match(r"/\w|~|[A-Za-z]:[\\/]", token)]
    assert not bad


@each_file
def test_the_header_gives_the_command_the_hardware_and_the_published_accuracy(path):
    lines = path.read_text().splitlines()
    body = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    header = "\n".join(lines[:body])
    command = f"python tools/train.py DATA --cfg experiments/{path.name} --cards 4 --lr 0.0125"
    assert f"#   {command}" in header
    assert "4 GPUs" in header
    top1_error, top5_error = PUBLISHED_ERRORS[_network(path)]
    assert f"top-1 {100 - top1_error:.1f} %" in header
    assert f"top-5 {100 - top5_error:.1f} %" in header


@each_file
def test_the_rate_of_the_header_on_four_cards_is_the_rate_of_the_name(path):
    cards, rate = re.search(r"--cards (\d+) --lr ([\d.]+)", path.read_text()).groups()
    assert int(cards) * float(rate) == pytest.approx(load_config(path).TRAIN.LR)


def test_every_recipe_is_either_of_100_epochs_or_one_of_the_stronger():
    names = {path.stem for path in FOLDER.glob("cls_hrnet_*.yaml")}
    assert names - {path.stem for path in PATHS} == set(STRONGER)


@each_stronger
def test_a_stronger_recipe_says_what_was_published_and_that_nothing_was_measured(name):
    """The command in its header names the file itself."""
    path = FOLDER / f"{name}.yaml"
    lines = path.read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    network, published = STRONGER[name]
    assert f"python tools/train.py DATA --cfg experiments/{name}.yaml --cards" in header
    assert all(f"{top1:.1f} %" in header for top1 in published)
    assert "Published by" in header and "Nothing was measured here" in header
    assert network == load_config(path).MODEL.NAME


@pytest.mark.parametrize("width", [18, 48])
def test_the_published_part_of_the_cosine_recipes_is_there(width):
    config = load_config(FOLDER / f"cls_hrnet_w{width}_cosine_cutmix_x300.yaml")
    assert (config.TRAIN.SCHEDULE, config.TRAIN.END_EPOCH) == ("cosine", 300)
    assert config.AUG.CUTMIX > 0 and config.AUG.MIXUP == 0


@pytest.mark.parametrize("width", [18, 48])
def test_the_published_part_of_ssld_is_there(width):
    config = load_config(FOLDER / f"cls_hrnet_w{width}_ssld.yaml")
    assert (config.DISTILL.LOSS, config.DISTILL.WEIGHT) == ("js", 1.0)
    assert (config.DISTILL.ARCH, config.TRAIN.SCHEDULE) == ("timm/resnext101_32x16d", "cosine")
    assert config.DISTILL.TEACHER and not Path(config.DISTILL.TEACHER).is_absolute()


@each_stronger
def test_the_rate_of_a_stronger_recipe_is_so_much_an_image_as_that_of_100_epochs(name):
    config = load_config(FOLDER / f"{name}.yaml")
    assert pytest.approx(0.05 / 128) == config.TRAIN.LR / config.TRAIN.BATCH_SIZE_PER_GPU
