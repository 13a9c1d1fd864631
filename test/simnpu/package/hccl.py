"""The process group `hccl`, over gloo."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist
from torch_npu import _C


def register() -> None:
    """Make `hccl` the backend of npu tensors."""
    if dist.is_available():
        dist.Backend.register_backend("hccl", _create, devices=["npu"])


def _create(store: dist.Store, rank: int, size: int, timeout: timedelta) -> _C.Hccl:
    return _C.Hccl(dist.ProcessGroupGloo(store, rank, size, timeout))
