"""The same network, computed with less work or less memory.

`lib.models.hrnet` stays the definition; the function stays the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from lib.models.hrnet import Bottleneck, HighResolutionModule


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
