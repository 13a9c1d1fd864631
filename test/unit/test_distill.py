"""Teachers from their files: which fit, and what is said of those that do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD
from lib.data.normalize import Normalize
from lib.runtime.files import sha256_of
from lib.training.distill import load_teacher
from lib.training.losses import Distillation, Teacher

NAMES = ("cat", "dog", "emu")
TIMMS, VIT = "timm/test_resnet", "timm/test_vit3"  # with 0.5 as means and deviations


class Small(nn.Module):
    """Takes N x 3 x H x W; has what evaluation changes."""

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.classifier = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(images).mean(dim=(2, 3)))


def load(path: Path, arch: str = "small", *, size: int = 32, build: object = Small) -> Teacher:
    return load_teacher(path, arch, Distillation(), build=build, class_names=NAMES, image_size=size)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.pth"
    torch.save(Small().state_dict(), path)
    return path


def timms_weights(folder: Path, arch: str, num_classes: int = 3) -> Path:
    network = timm.create_model(arch.removeprefix("timm/"), num_classes=num_classes)
    torch.save(network.state_dict(), folder / "timm.pth")
    return folder / "timm.pth"


def test_a_teacher_is_in_evaluation_mode_learns_nothing_and_names_its_file(weights: Path) -> None:
    teacher = load(weights)
    assert not teacher.network.training and not teacher.network.norm.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert teacher.sha256 == sha256_of(weights)
    assert f"teacher small, 7 tensors from {weights}; loss js" in teacher.said


def test_a_network_of_timms_gets_the_pictures_as_it_was_trained_to(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    planes = pixels.permute(0, 3, 1, 2) / 255
    for arch in (TIMMS, VIT):
        path = timms_weights(tmp_path, arch)
        plain = timm.create_model(arch.removeprefix("timm/"), num_classes=3).eval()
        plain.load_state_dict(torch.load(path, weights_only=True))
        mean, std = (torch.tensor(plain.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
        size = plain.pretrained_cfg["input_size"][-1]
        grown = torch.nn.functional.interpolate(planes, (size, size))
        ours = Normalize()((grown * 255).permute(0, 2, 3, 1))
        found = load(path, arch, size=size).network(ours)
        assert torch.allclose(found, plain((grown - mean) / std), atol=1e-4)
    assert plain.pretrained_cfg["mean"] != IMAGENET_MEAN and IMAGENET_STD != (0.5, 0.5, 0.5)


def test_other_classes_are_refused_by_number_and_by_name(tmp_path: Path, weights: Path) -> None:
    torch.save(Small(5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(ValueError, match="five.pth does not fit.*are 3 classes what it knows"):
        load(tmp_path / "five.pth")
    named = {"state_dict": Small().state_dict(), "class_names": ["ant", "bee", "cow"]}
    torch.save(named, tmp_path / "named.pth")
    with pytest.raises(ValueError, match=r"knows 3 classes \(ant, bee, cow, .*has 3 \(cat, dog"):
        load(tmp_path / "named.pth")
    torch.save({**named, "class_names": list(NAMES)}, tmp_path / "named.pth")
    assert load(tmp_path / "named.pth").sha256 != load(weights).sha256


def test_weights_of_another_network_are_refused_with_the_key_to_look_at(
    tmp_path: Path, weights: Path
) -> None:
    with pytest.raises(ValueError, match="does not fit.*is DISTILL.ARCH .timm/test_resnet. its"):
        load(weights, TIMMS)
    with pytest.raises(ValueError, match=r"timm.pth does not fit.*other shape.*DISTILL.ARCH"):
        load(timms_weights(tmp_path, TIMMS, num_classes=7), TIMMS)


@pytest.mark.parametrize("name", ["resnet50_", "nothing_of_the_kind"])
def test_a_name_that_timm_does_not_know_is_refused(weights: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"DISTILL.ARCH: timm has no network '{name}'"):
        load(weights, f"timm/{name}")


def test_without_timm_its_networks_are_refused(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm is not installed: pip install timm, for"):
        load(weights, "timm/resnet50")
    load(weights)


def test_a_network_that_cannot_take_such_pictures_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not take pictures of 96 x 96") as error:
        load(timms_weights(tmp_path, VIT), VIT, size=96)
    assert "\n" not in str(error.value)


def test_a_network_that_gives_no_logits_is_refused(weights: Path) -> None:
    class Maps(Small):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(ValueError, match=r"gives \(1, 3, 32, 32\) for one picture, and \(1, 3\)"):
        load(weights, build=Maps)


def test_a_teacher_of_nan_is_refused(tmp_path: Path) -> None:
    """Fault C4: at loading, by the names of what is NaN."""
    state = Small().state_dict() | {"classifier.bias": torch.full((3,), float("nan"))}
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan.pth teaches nothing: 1 hold NaN .*classifier.bias"):
        load(tmp_path / "nan.pth")


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load(tmp_path / "none.pth")
