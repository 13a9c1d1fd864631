"""The same network, computed with less work or less memory.

`lib.models.hrnet` stays the definition. What is done here changes the order in which numbers are
added and nothing else: parameters, their names and the function stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from lib.models.hrnet import Bottleneck, FuseSum, HighResolutionModule


class LevelwiseFuseSum(FuseSum):
    """A FuseSum that repeats pixels once a level, as nearest upsampling is linear and composes.

    up8(a) + up4(b) + up2(c) = up2(up2(up2(a) + b) + c), so that most sums and all copies of the
    smallest maps run on small maps: a path over three levels writes 1.3 maps instead of 3.
    """

    def forward(self, maps: list[Tensor]) -> Tensor:
        """As `FuseSum.forward`, equal up to rounding."""
        paths = list(self)
        target = next(i for i, path in enumerate(paths) if isinstance(path, nn.Identity))
        smaller: Tensor | None = None
        for path, x in zip(paths[:target:-1], maps[:target:-1], strict=True):
            for layer in list(path.children())[:-1]:  # the last is the upsampling
                x = layer(x)
            smaller = F.interpolate(x if smaller is None else x + smaller, scale_factor=2.0)
        total = maps[target]
        for path, x in zip(paths[:target], maps[:target], strict=True):
            total = total + path(x)
        return F.relu(total if smaller is None else total + smaller)


def fuse_levelwise(network: nn.Module) -> nn.Module:
    """Let every fusion of `network` work level by level; return the network itself.

    Names and values of the parameters stay as they are.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is FuseSum:
                setattr(module, name, LevelwiseFuseSum(child))
    return network


class _Checkpointed(nn.Module):
    """Keeps only its input for the backward pass, and computes itself again there.

    Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174. The second
    forward pass leaves the batch norms' averages alone.
    """

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """As the class it is put before, bit for bit."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        return checkpoint(
            super().forward,
            x,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._averages_kept()),
        )

    @contextmanager
    def _averages_kept(self) -> Iterator[None]:
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None  # average: 1 * old + 0 * new
        try:
            yield
        finally:
            for norm, momentum, count in kept:
                norm.momentum, norm.num_batches_tracked = momentum, count


class CheckpointedBottleneck(_Checkpointed, Bottleneck):  # type: ignore[misc]
    """A bottleneck block that keeps only its input."""


class CheckpointedModule(_Checkpointed, HighResolutionModule):  # type: ignore[misc]
    """A module of stages 2 to 4 that keeps only its input maps."""


_SPARING = {Bottleneck: CheckpointedBottleneck, HighResolutionModule: CheckpointedModule}


def checkpoint_activations(network: nn.Module) -> nn.Module:
    """Let bottlenecks and modules keep less for the backward pass; return the network itself.

    Most of the forward pass is then computed twice.
    """
    for module in network.modules():
        # The same parameters under the same names.
        module.__class__ = _SPARING.get(type(module), type(module))
    return network


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are part of the convolutions before them.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, computed
    in float64 and rounded once.
    """
    folded = copy.deepcopy(network).eval().double()
    for parent in list(folded.modules()):
        previous: tuple[str, nn.Module] = ("", parent)
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(previous[1], nn.Conv2d):
                setattr(parent, previous[0], fuse_conv_bn_eval(previous[1], child))
                setattr(parent, name, nn.Identity())
            previous = (name, child)
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert not left, f"batch norms without a convolution before them: {left}"
    return folded.float()


def for_inference(network: nn.Module) -> nn.Module:
    """Return a copy for evaluation alone: batch norms folded, fusions level by level."""
    return fuse_levelwise(fold_batch_norms(network))
