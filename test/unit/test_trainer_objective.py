"""From the configuration to what is minimised: each key arrives, and none does by default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from range_server import WeightHandler, serving

from lib.config.load import load_config
from lib.data.augmenting import Changer, Extras
from lib.data.build import build_train_loader
from lib.data.image_list import ImageList
from lib.models.hrnet import build_hrnet, find_spec
from lib.runtime.distributed import Processes
from lib.runtime.environment import RankInfo
from lib.runtime.files import sha256_of
from lib.training.losses import Distillation, LabelLoss
from lib.training.mixing import Mixing
from lib.training.objective import PLAIN, Objective, build_objective
from lib.training.start import TrainRequest, fetch_pretrained

IMAGES = ImageList(["x"] * 6, [0, 0, 0, 1, 2, 2], ("a", "b", "c"))
SMALL = ("MODEL.NAME", "hrnet_w18_small_v1", "MODEL.IMAGE_SIZE", "[32, 32]")


def objective(*overrides: str, rank: int = 0) -> Objective:
    processes = Processes(RankInfo(), torch.device("cpu"))
    processes.ranks = RankInfo(rank=rank, world_size=2 if rank else 1)
    return build_objective(load_config(None, [*SMALL, *overrides]), processes, IMAGES, seed=7)


def test_by_default_training_minimises_plain_cross_entropy() -> None:
    found = objective()
    assert (found.label_loss, found.teacher) == (LabelLoss(), None)
    assert found.mixing.draw(0, 0, height=32, width=32) is None
    assert found.teacher_sum == PLAIN.teacher_sum == ""


def test_the_loss_of_labels_is_the_configurations() -> None:
    settings = ("TRAIN.LOSS", "bce", "TRAIN.LABEL_SMOOTHING", "0.2")
    loss = objective(*settings, "TRAIN.CLASS_WEIGHTS", "balanced").label_loss
    assert (loss.name, loss.smoothing) == ("bce", 0.2)
    assert torch.allclose(loss.class_weights, torch.tensor([2 / 3, 2.0, 1.0]))


def test_mixing_is_the_configurations_with_the_runs_seed_and_each_ranks_own() -> None:
    settings = ("AUG.MIXUP", "0.2", "AUG.CUTMIX", "1", "AUG.MIX_PROB", "0.9")
    found = objective(*settings, "AUG.MIX_SWITCH_PROB", "0.3", rank=1).mixing
    assert found == Mixing(0.2, 1.0, 0.9, 0.3, seed=7, rank=1)


def test_a_teacher_is_the_configurations_or_the_students_own_network(tmp_path: Path) -> None:
    for arch in ("", "hrnet_w18_small_v2"):
        path = tmp_path / f"teacher{arch}.pth"
        torch.save(build_hrnet(find_spec(arch or SMALL[1]), 3).state_dict(), path)
        settings = ("DISTILL.LOSS", "kl", "DISTILL.TEMPERATURE", "3", "DISTILL.WEIGHT", "0.2")
        found = objective(*settings, "DISTILL.TEACHER", str(path), "DISTILL.ARCH", arch).teacher
        assert found.distillation == Distillation("kl", 3.0, 0.2)
        assert f"teacher {arch or SMALL[1]}, " in found.said


def test_a_teacher_may_lie_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("http_proxy", raising=False)
    path = tmp_path / "teacher.pth"
    torch.save(build_hrnet(find_spec(SMALL[1]), 3).state_dict(), path)
    with serving(tmp_path, WeightHandler) as server:
        settings = ("DISTILL.TEACHER", f"{server.url}/teacher.pth")
        fetch_pretrained(load_config(None, settings), TrainRequest(tmp_path, tmp_path, "x"))
        assert len(server.requests) == 1, "before the other ranks are waited for"
        teacher = objective(*settings).teacher
        assert len(server.requests) == 1
    assert teacher.sha256 == sha256_of(path)
    assert f"tensors from {tmp_path / 'torch'}" in teacher.said


@pytest.mark.parametrize(
    ("overrides", "extras"),
    [
        ((), Extras()),
        (("AUG.AUTO", "randaugment", "AUG.RANDAUGMENT", "[3, 7]"), Extras("randaugment", 3, 7)),
        (("AUG.AUTO", "trivialaugment", "AUG.ERASE", "0.2"), Extras("trivialaugment", erase=0.2)),
    ],
)
def test_what_is_done_to_pictures_is_the_configurations(
    overrides: tuple[str, ...], extras: Extras, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Extras] = []
    plain = Changer.__init__
    monkeypatch.setattr(Changer, "__init__", lambda self, e: (asked.append(e), plain(self, e))[1])
    processes = Processes(RankInfo(), torch.device("cpu"))
    build_train_loader(
        load_config(None, list(overrides)), IMAGES, processes, seed=0, decoder="pillow"
    )
    assert asked == ([] if extras == Extras() else [extras])
