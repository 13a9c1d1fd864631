"""Which HRNet a file of weights is of, told by its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from lib.models.hrnet import ARCHS, HRNetSpec, StageSpec

_BLOCK = re.compile(r"(?:layer1|stage([234])\.(\d+)\.branches\.(\d+))\.(\d+)\.conv1\.weight")


def guess_spec(weights: Mapping[str, torch.Tensor]) -> HRNetSpec | None:
    """Return the network whose residual blocks these are; None where it is no HRNet.

    Only the blocks are looked at: loading the weights tells whether all else fits.
    """
    found = [match for match in map(_BLOCK.fullmatch, weights) if match]
    try:
        return HRNetSpec(*(_stage(number, found, weights) for number in (1, 2, 3, 4)))
    except ValueError:
        return None


def guess_arch(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the published network that these weights are of; None: of no one."""
    spec = guess_spec(weights)
    return next((name for name, known in ARCHS.items() if known == spec), None)


def _stage(
    number: int, found: list[re.Match[str]], weights: Mapping[str, torch.Tensor]
) -> StageSpec:
    """Return one stage; raise ValueError where there are no blocks for it."""
    own = [match for match in found if int(match[1] or 1) == number]
    branches = sorted({int(match[3] or 0) for match in own})
    first = [m for m in own if int(m[2] or 0) == 0]  # all modules are alike
    blocks = [[m for m in first if int(m[3] or 0) == branch] for branch in branches]
    is_bottleneck = any(m[0].replace("conv1", "conv3") in weights for m in first)
    return StageSpec(
        num_modules=len({m[2] for m in own}),
        block="BOTTLENECK" if is_bottleneck else "BASIC",
        num_blocks=tuple(map(len, blocks)),
        num_channels=tuple(weights[branch[0][0]].shape[0] for branch in blocks),
    )
