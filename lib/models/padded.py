"""The same network, its maps widened with channels of zeros to a multiple of some number.

Matrix units take 8 or more channels at a time, and HRNet-W18's maps have 18 and 36. The function
stays the same, since an added channel is zero everywhere: a convolution with rows of zeros gives
zeros, a batch norm whose weight and bias are zero keeps them, and so do ReLU, sums and repeated
pixels. Backward, columns of zeros let no gradient through.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedConv2d(nn.Conv2d):
    """Takes maps with added channels, and adds as many as the multiple wants to its own."""

    multiple: int

    def forward(self, x: Tensor) -> Tensor:
        """N x (in_channels + added) x H x W -> N x (out_channels + added) x H' x W'."""
        num_added = -self.out_channels % self.multiple
        weight = _with_zeros(self.weight, num_added, x.shape[1] - self.in_channels)
        bias = None if self.bias is None else _with_zeros(self.bias, num_added)
        return self._conv_forward(x, weight, bias)


class PaddedBatchNorm2d(nn.BatchNorm2d):
    """Normalises the channels that it has weights for, and leaves added ones at zero."""

    def forward(self, x: Tensor) -> Tensor:
        """N x (num_features + added) x H x W, in and out."""
        num_added = x.shape[1] - self.num_features
        if not num_added:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None, "an average of all batches alike is not built here"
        mean, var, weight, bias = (
            _with_zeros(tensor, num_added)
            for tensor in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        y = F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)
        if self.training:
            self.running_mean.copy_(mean[: self.num_features])
            self.running_var.copy_(var[: self.num_features])
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return y


def pad_widths(network: nn.Module, multiple: int) -> nn.Module:
    """Let an HRNet compute with widths that are multiples of `multiple`; return it itself.

    Zeros are added in each step, so weights, gradients, optimizers and checkpoints keep the
    published shapes.
    """
    for module in network.modules() if multiple > 1 else ():
        if type(module) is nn.Conv2d:
            module.__class__ = PaddedConv2d
            assert isinstance(module, PaddedConv2d)
            module.multiple = multiple
        elif type(module) is nn.BatchNorm2d:
            module.__class__ = PaddedBatchNorm2d
    return network


def widen(folded: nn.Module, multiple: int) -> nn.Module:
    """Add the zeros to an HRNet's weights, once and for all; return the network itself.

    For one whose batch norms are folded (see `lib.models.folding`), and that is not saved.
    """
    for name, conv in folded.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        assert conv.bias is not None, f"{name} has a batch norm"
        num_out = -conv.out_channels % multiple
        num_in = -conv.in_channels % multiple if name != "conv1" else 0  # which takes the image
        weight = _with_zeros(conv.weight.detach(), num_out, num_in)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(_with_zeros(conv.bias.detach(), num_out), requires_grad=False)
        conv.in_channels += num_in
        conv.out_channels += num_out
    return folded


def _with_zeros(tensor: Tensor, *nums_added: int) -> Tensor:
    """Return the tensor with so many zeros after the end of each of its first dimensions."""
    if not any(nums_added):
        return tensor  # without a copy
    nums = [*nums_added, *[0] * (tensor.dim() - len(nums_added))]
    return F.pad(tensor, [side for num in reversed(nums) for side in (0, num)])
