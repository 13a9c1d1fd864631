"""A simulated torch_npu: the real one's names and refusals, as far as this project meets them.

torch loads it by itself, as the real one, through the entry point beside this package.
"""

from __future__ import annotations

import torch
from torch_npu import _C, _events, hccl, npu

torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
hccl.register()
_events.record_steps()

from torch_npu import optim, profiler  # noqa: E402  they need torch to know the device

__all__ = ["_C", "hccl", "npu", "optim", "profiler"]


def _autoload() -> None:
    """What torch calls while it is imported; importing this module has done all there is."""
