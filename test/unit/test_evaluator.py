"""lib/evaluation/run.py: the network that is evaluated, as the configuration asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lib.evaluation import run as evaluator
from lib.models.hrnet import build_hrnet
from lib.models.padded import PaddedConv2d
from lib.models.resolver import resolve


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    torch.save(build_hrnet("hrnet_w18_small_v2", 3).state_dict(), path)
    return path


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("multiple", [1, 8])
def test_widths_and_folding_are_those_of_the_configuration(
    is_folded: bool, multiple: int, weights: Path
) -> None:
    settings = ["MODEL.NAME", "hrnet_w18_small_v2", "TEST.FOLD_BN", str(is_folded)]
    settings += ["TRAIN.WIDTH_MULTIPLE", str(multiple)]
    network, _ = evaluator._network(resolve(weights, overrides=settings))
    assert is_folded != any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    is_padded = any(isinstance(m, PaddedConv2d) for m in network.modules())
    width = network.stage2[0].branches[0][0].conv1.out_channels
    assert (is_padded, width) == {
        (1, False): (False, 18),
        (8, False): (True, 18),
        (1, True): (False, 18),
        (8, True): (False, 24),
    }[multiple, is_folded]
