"""The loss scaler of the real torch.npu.amp, for chips that have infinities."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch_npu import _C

Outputs = torch.Tensor | Iterable[torch.Tensor]


class GradScaler(torch.amp.GradScaler):
    """torch's scaler that reads a fused optimizer's combined gradients and saves one key more."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        dynamic: bool = True,
        enabled: bool = True,
    ) -> None:
        super().__init__("npu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
        self._dynamic = dynamic

    def scale(self, outputs: Outputs) -> Outputs:
        """Raises ValueError for a tensor that is not on an npu."""
        if isinstance(outputs, torch.Tensor) and not outputs.is_npu:
            raise ValueError("Device type of outputs should be npu.")
        if isinstance(outputs, torch.Tensor) and outputs.requires_grad:
            _C.note("scaled loss")
        return super().scale(outputs)

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: torch.Tensor,
        found_inf: torch.Tensor,
        allow_fp16: bool,
    ) -> dict[torch.device, torch.Tensor]:
        if not hasattr(optimizer, "is_fused_optimizer"):
            return super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        for gradients in optimizer.combined_gradients():
            torch._amp_foreach_non_finite_check_and_unscale_([gradients], found_inf, inv_scale)
        return {found_inf.device: found_inf}

    def state_dict(self) -> dict[str, object]:
        """Holds `dynamic`, which torch's own state lacks."""
        return {**super().state_dict(), "dynamic": self._dynamic}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Raises KeyError for a state without `dynamic`."""
        super().load_state_dict(state_dict)
        self._dynamic = state_dict["dynamic"]
