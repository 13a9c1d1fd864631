"""torch.npu: devices, memory, generators, and the switches that the real module has."""

from __future__ import annotations

import torch
from torch_npu import _C
from torch_npu.npu import amp
from torch_npu.npu.switches import config, conv, matmul, set_compile_mode

__all__ = [
    "amp",
    "config",
    "conv",
    "current_device",
    "device_count",
    "get_amp_supported_dtype",
    "get_device_name",
    "get_rng_state",
    "init",
    "is_available",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "matmul",
    "max_memory_allocated",
    "memory_allocated",
    "reset_peak_memory_stats",
    "set_compile_mode",
    "set_device",
    "set_rng_state",
    "synchronize",
]

Device = torch.device | str | int | None


def is_available() -> bool:
    return _C.num_devices() > 0


def device_count() -> int:
    return _C.num_devices()


def current_device() -> int:
    init()
    return _C.current_device()


def set_device(device: Device) -> None:
    init()
    _C.set_device(_index(device))


def init() -> None:
    """Raises RuntimeError in a process forked from one that had used the device."""
    _C.use_device()


_lazy_init = init  # torch's own name for it


def is_initialized() -> bool:
    return _C.is_initialized()


def _is_in_bad_fork() -> bool:
    return _C.is_in_bad_fork()


def get_device_name(device: Device = None) -> str:
    _index(device)
    return "Ascend simulated"


def synchronize(device: Device = None) -> None:
    torch.accelerator.synchronize(_index(device))


def memory_allocated(device: Device = None) -> int:
    return _C.memory_use(_index(device))[0]


def max_memory_allocated(device: Device = None) -> int:
    return _C.memory_use(_index(device))[1]


def reset_peak_memory_stats(device: Device = None) -> None:
    _C.reset_peak(_index(device))


def manual_seed(seed: int) -> None:
    _C.default_generator(_C.current_device()).manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        _C.default_generator(index).manual_seed(seed)


def get_rng_state(device: Device = "npu") -> torch.Tensor:
    return _C.default_generator(_index(device)).get_state()


def set_rng_state(new_state: torch.Tensor, device: Device = "npu") -> None:
    _C.default_generator(_index(device)).set_state(new_state)


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


def _index(device: Device) -> int:
    """The index that is meant; without one it is the current device's."""
    if isinstance(device, str):
        device = torch.device(device)
    index = device.index if isinstance(device, torch.device) else device
    index = _C.current_device() if index is None else index
    if not 0 <= index < device_count():
        raise RuntimeError(f"Invalid device ID {index} of {device_count()}")
    return index
