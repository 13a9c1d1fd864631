"""NpuFusedSGD: one update over all weights, which become views on one piece of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

_FUSABLE = (torch.float32, torch.float16)


@dataclass
class _Fused:
    """A parameter group's tensors of one dtype, each flat and in one piece."""

    weights: torch.Tensor
    gradients: torch.Tensor
    momentum: torch.Tensor | None = None


class NpuFusedSGD(torch.optim.Optimizer):
    """SGD as torch's, with the real one's conditions.

    From the first step on, weights and gradients are views on memory of its own: who replaces a
    gradient afterwards, its update is computed from the old one.
    """

    is_fused_optimizer = True

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)
        self._fused: list[_Fused] | None = None
        self._momentum_is_begun = False

    def combined_gradients(self) -> list[torch.Tensor]:
        """Return all gradients, flat; the loss scaler unscales these."""
        return [fused.gradients for fused in self._combined()]

    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = False) -> None:
        """Raises ValueError where gradients are to be dropped instead of zeroed."""
        if set_to_none:
            raise ValueError("set_to_none is not supported in fused optimizers")
        for fused in self._combined():
            fused.gradients.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Raises TypeError for weights that are neither float32 nor float16."""
        loss = None if closure is None else closure()
        for group, fused in zip(self.param_groups, self._combined(), strict=True):
            if group["momentum"] and fused.momentum is None:
                self._begin_momentum(group, fused)
            self._update(group, fused)
        self._momentum_is_begun = True
        return loss

    def _combined(self) -> list[_Fused]:
        if self._fused is None and any(p.grad is not None for p in self._parameters()):
            self._fused = [self._combine(group["params"]) for group in self.param_groups]
        return self._fused or []

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def _combine(self, parameters: list[torch.nn.Parameter]) -> _Fused:
        for parameter in parameters:
            if parameter.dtype not in _FUSABLE:
                raise TypeError(
                    "Fused optimizer's parameters must be either float32 or float16, but received "
                    f"{parameter.dtype}"
                )
        fused = _Fused(_flat(parameters), _flat([p.grad for p in parameters]))
        for parameter, weight, gradient in zip(
            parameters, _parts(fused.weights, parameters), _parts(fused.gradients, parameters),
            strict=True,
        ):  # fmt: skip
            parameter.data, parameter.grad.data = weight, gradient
        return fused

    def _begin_momentum(self, group: dict, fused: _Fused) -> None:
        """The first step's is its gradient; after a resume it is what was saved."""
        parameters = group["params"]
        if "momentum_buffer" in self.state[parameters[0]]:
            self._momentum_is_begun = True
            fused.momentum = _flat([self.state[p]["momentum_buffer"] for p in parameters])
        else:
            fused.momentum = fused.gradients.add(fused.weights, alpha=group["weight_decay"])
        for parameter, part in zip(parameters, _parts(fused.momentum, parameters), strict=True):
            self.state[parameter]["momentum_buffer"] = part

    def _update(self, group: dict, fused: _Fused) -> None:
        gradient = fused.gradients
        if group["weight_decay"]:
            gradient = gradient.add(fused.weights, alpha=group["weight_decay"])
        if fused.momentum is not None:
            if self._momentum_is_begun:
                fused.momentum.mul_(group["momentum"])
                fused.momentum.add_(gradient, alpha=1 - group["dampening"])
            gradient = (
                gradient.add(fused.momentum, alpha=group["momentum"])
                if group["nesterov"]
                else fused.momentum
            )
        fused.weights.add_(gradient, alpha=-group["lr"])


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _parts(flat: torch.Tensor, like: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Views on `flat` with the shapes of `like`."""
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
