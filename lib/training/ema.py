"""An exponential moving average of a network's weights, which is often better than the last ones.

Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; with a decay that
rises at first, so that the average soon forgets the weights that it began with.

torch.optim.swa_utils.AveragedModel computes the same with a constant decay. It is not used since it
sends a counter to the device in each step, and would average the counters of batch norms as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn


class AveragedWeights:
    """A second network, whose weights are the average of the first one's.

    average <- d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) where n is
    the number of updates before. Batch norms' means and variances are averaged alike; their
    counters are the network's own. An update is some operations on the device; the host waits for
    none of them.
    """

    def __init__(self, network: nn.Module, decay: float):
        """Begin with the network's present weights, at the place where they are.

        Raises ValueError for a decay that is not within 0..1.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"TRAIN.EMA_DECAY: {decay} must be within [0, 1)")
        self._decay = decay
        self.num_updates = 0
        self.network = _copied(network).eval()
        self._averages, self._weights = _floating(self.network), _floating(network)

    def next_decay(self) -> float:
        """Return the share that the average keeps of itself in the next update."""
        return min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights into the average; once after each step.

        A step of fp16 that was left out counts too: the host does not know of it.
        """
        pairs = zip(self._weights, self._averages, strict=True)
        # apex keeps the network in fp16; the average stays in float32.
        weights = [w if w.dtype == a.dtype else w.to(a.dtype) for w, a in pairs]
        torch._foreach_lerp_(self._averages, weights, 1 - self.next_decay())
        self.num_updates += 1

    def load(self, weights: Mapping[str, torch.Tensor], num_updates: int) -> None:
        """Go on from the saved weights of `network` and their `num_updates`."""
        self.network.load_state_dict(weights, strict=True)
        self.num_updates = num_updates


def _floating(network: nn.Module) -> list[torch.Tensor]:
    """The tensors to average. Parameters as they are: an optimizer may exchange their memory."""
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _copied(network: nn.Module) -> nn.Module:
    """A copy with weights of its own that need no gradients, and the network's own counters."""
    copies: dict[int, torch.Tensor] = {}  # by identity, as deepcopy looks for them
    for parameter in network.parameters():
        copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    for buffer in network.buffers():
        copies[id(buffer)] = buffer.clone() if buffer.is_floating_point() else buffer
    return copy.deepcopy(network, copies)
