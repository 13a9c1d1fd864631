"""Numeric precision of a run: fp32 | hf32 (tf32 on cuda) | fp16 | bf16.

Weights stay float32; fp16 and bf16 run the forward pass under autocast, fp16 with a dynamic loss
scale (Micikevicius et al., arXiv 1710.03740). With the apex backend, apex's O2 takes its place.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import nn

from lib.runtime import device as devices

_AUTOCAST_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """How one step computes; has state (the loss scale) that belongs into a checkpoint.

    The apex backend concerns fp16 alone; where apex is not importable, torch's own mixed precision
    takes its place, and `describe` says so. With a `max_grad_norm` above 0 the gradients of a step
    are scaled down together to at most that norm. Raises ValueError for an unknown name.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        *,
        backend: str = "torch",
        max_grad_norm: float = 0.0,
    ):
        self.name = devices.default_precision(device) if name == "auto" else name
        if self.name not in ("fp32", "hf32", "fp16", "bf16"):
            raise ValueError(f"precision {name!r} is not one of auto, fp32, hf32, fp16, bf16")
        self.device = device
        self._max_grad_norm = max_grad_norm
        wants_apex = backend == "apex" and self.name == "fp16"
        self._amp = _import_apex_amp() if wants_apex else None
        self._lacks_apex = wants_apex and self._amp is None
        self._scaler = (
            devices.grad_scaler(device) if self.name == "fp16" and self._amp is None else None
        )
        if self.name in ("fp32", "hf32"):
            devices.allow_hf32(device, self.name == "hf32")

    def describe(self) -> str:
        """Return the precision in words, for the log."""
        if self._amp is not None:
            return "fp16 (apex O2, dynamic loss scale)"
        words = {
            "fp32": "fp32",
            "hf32": {"npu": "hf32", "cuda": "hf32 (tf32)"}.get(
                self.device.type, "hf32 (plain fp32: this device has no hf32)"
            ),
            "fp16": "fp16 (autocast, dynamic loss scale)",
            "bf16": "bf16 (autocast)",
        }
        return words[self.name] + ("; apex is not installed" if self._lacks_apex else "")

    @property
    def uses_apex(self) -> bool:
        """True where apex's O2 runs, which wraps a plain, not a fused optimizer."""
        return self._amp is not None

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return model and optimizer ready for this precision; call before DDP wraps the model."""
        if self._amp is None:
            return model, optimizer
        return self._amp.initialize(
            model, optimizer, opt_level="O2", loss_scale="dynamic", verbosity=0
        )

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the forward pass runs."""
        if self._amp is not None or self.name not in _AUTOCAST_DTYPES:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST_DTYPES[self.name])

    def clear_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin a step."""
        if self._amp is not None:
            optimizer.zero_grad()  # apex puts its own in place, which takes no argument
        else:
            optimizer.zero_grad(set_to_none=not devices.keeps_gradients(optimizer))

    def backward(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradients of a loss, scaled where the precision needs it."""
        if self._amp is not None:
            with self._amp.scale_loss(loss, optimizer) as scaled_loss:
                scaled_loss.backward()
        elif self._scaler is not None:
            self._scaler.scale(loss).backward()
        else:
            loss.backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients and take one optimizer step.

        With fp16 a step whose gradients overflow is left out, and the scale is lowered.
        """
        if self._max_grad_norm > 0:
            self._clip(optimizer)
        if self._scaler is not None:
            self._scaler.step(optimizer)
            self._scaler.update()
        else:
            optimizer.step()

    def _clip(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the gradients down to the largest norm allowed, on the device.

        Of gradients that overflow nothing useful is left, and their step is left out anyway.
        Pascanu et al., On the difficulty of training recurrent neural networks, 2013, section 3.2.
        """
        if self._amp is not None:
            parameters = list(self._amp.master_params(optimizer))  # float32, unscaled by apex
        else:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)

    def loss_scale(self) -> torch.Tensor:
        """Return the present loss scale as a float32 scalar on the device, without a host sync."""
        one = torch.ones((), device=self.device)
        if self._amp is not None:
            return one * float(self._amp.state_dict()["loss_scaler0"]["loss_scale"])
        return one if self._scaler is None else self._scaler.scale(one)

    def state_dict(self) -> dict[str, dict[str, object]]:
        """Return the loss scaler's state in plain types; empty where there is none."""
        if self._amp is not None:
            return {"apex": self._amp.state_dict()}
        return {} if self._scaler is None else {"scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, dict[str, object]]) -> None:
        """Put back a state of `state_dict`; one of another precision is left aside."""
        if self._amp is not None and "apex" in state:
            self._amp.load_state_dict(state["apex"])
        elif self._scaler is not None and "scaler" in state:
            # torch_npu's scaler also asks for `dynamic`, which torch's own does not save.
            self._scaler.load_state_dict({"dynamic": True, **state["scaler"]})


def _import_apex_amp() -> ModuleType | None:
    """Return apex.amp, or None: `pip install apex` gives an unrelated package without it."""
    try:
        return importlib.import_module("apex.amp")
    except ImportError:
        return None
