"""A stand-in for apex.amp: the part of its published interface that this project calls.

Its O2 keeps float32 weights, as apex's master weights are, and computes in float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_state = {"loss_scale": 2.0**16, "unskipped": 0}


def initialize(
    models: torch.nn.Module,
    optimizers: torch.optim.Optimizer,
    enabled: bool = True,
    opt_level: str = "O1",
    cast_model_type: torch.dtype | None = None,
    patch_torch_functions: bool | None = None,
    keep_batchnorm_fp32: bool | None = None,
    master_weights: bool | None = None,
    loss_scale: float | str | None = None,
    cast_model_outputs: torch.dtype | None = None,
    num_losses: int = 1,
    verbosity: int = 1,
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return both with the forward pass in float16 and apex's own zero_grad."""
    if (opt_level, loss_scale) != ("O2", "dynamic"):
        raise ValueError(f"{opt_level} with loss_scale {loss_scale}: only O2 and dynamic are here")
    forward = models.forward

    def half_forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, torch.float16):
            return forward(images)

    def zero_grad() -> None:  # without an argument
        for parameter in _parameters(optimizers):
            parameter.grad = None

    models.forward, optimizers.zero_grad = half_forward, zero_grad
    return models, optimizers


@contextmanager
def scale_loss(loss: torch.Tensor, optimizers: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Give the scaled loss; afterwards unscale the gradients, or leave the next step out."""
    yield loss.float() * _state["loss_scale"]
    gradients = [p.grad for p in _parameters(optimizers)]
    for gradient in gradients:
        gradient.div_(_state["loss_scale"])
    if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        _state["unskipped"] += 1
        return
    _state.update(loss_scale=_state["loss_scale"] / 2, unskipped=0)
    step = optimizers.step

    def skip() -> None:
        optimizers.step = step

    optimizers.step = skip


def master_params(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    """Yield what the optimizer updates."""
    yield from _parameters(optimizer)


def state_dict() -> dict[str, dict[str, float]]:
    return {"loss_scaler0": dict(_state)}


def load_state_dict(state: dict[str, dict[str, float]]) -> None:
    _state.update(state["loss_scaler0"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
