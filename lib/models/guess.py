"""The HRNet that weights are of, told by their names and shapes."""

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
    stages = [stage for stage in _stages(weights) if stage is not None]
    try:
        return HRNetSpec(*stages) if len(stages) == 4 else None
    except ValueError:
        return None


def guess_arch(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the published network that these weights are of; None: of no one."""
    return arch_name(guess_spec(weights))


def arch_name(spec: HRNetSpec | None) -> str | None:
    """Return the name under which a network is published; None where it isn't."""
    return next((name for name, known in ARCHS.items() if known == spec), None)


def nearest_arch(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Return the published network that most branches fit; None where not one fits any."""
    stages = _stages(weights)
    counts = {
        name: sum(map(_likeness, stages, (spec.stage1, spec.stage2, spec.stage3, spec.stage4)))
        for name, spec in ARCHS.items()
    }
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def _likeness(found: StageSpec | None, known: StageSpec) -> int:
    """Count the branches of a known stage that are there, twice where they are no deeper."""
    if found is None or found.num_modules < known.num_modules:
        return 0
    is_as_long = found.num_modules == known.num_modules
    pairs = zip(
        zip(found.num_channels, found.num_blocks, strict=True),
        zip(known.num_channels, known.num_blocks, strict=True),
        strict=False,
    )
    return sum(
        2 if is_as_long and blocks == known_blocks else 1
        for (channels, blocks), (known_channels, known_blocks) in pairs
        if channels == known_channels and blocks >= known_blocks
    )


def _stages(weights: Mapping[str, torch.Tensor]) -> list[StageSpec | None]:
    """Return the four stages, None for each without blocks."""
    found = [match for match in map(_BLOCK.fullmatch, weights) if match]
    return [_stage(number, found, weights) for number in (1, 2, 3, 4)]


def _stage(
    number: int, found: list[re.Match[str]], weights: Mapping[str, torch.Tensor]
) -> StageSpec | None:
    own = [match for match in found if int(match[1] or 1) == number]
    branches = sorted({int(match[3] or 0) for match in own})
    first = [m for m in own if int(m[2] or 0) == 0]  # all modules are alike
    blocks = [[m for m in first if int(m[3] or 0) == branch] for branch in branches]
    if not all(blocks) or not blocks or any(weights[m[0]].dim() == 0 for m in first):
        return None
    is_bottleneck = any(m[0].replace("conv1", "conv3") in weights for m in first)
    return StageSpec(
        num_modules=len({m[2] for m in own}),
        block="BOTTLENECK" if is_bottleneck else "BASIC",
        num_blocks=tuple(map(len, blocks)),
        num_channels=tuple(weights[branch[0][0]].shape[0] for branch in blocks),
    )
