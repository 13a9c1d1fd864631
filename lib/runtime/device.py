"""Everything that differs between npu, cuda and cpu; no other module names a device's API.

On npu, torch_npu is loaded by torch itself (its autoload hook) or, where that hook is switched
off, on the first request for an npu.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from lib.runtime.allocator import keep_freed_memory
from lib.runtime.cli import torch_npu_refusal

KINDS = ("npu", "cuda", "cpu")
PROFILER_WARMUP_STEPS, _PROFILED_STEPS = 1, 3


def select_device(kind: str, index: int = 0, *, index_source: str = "--device_id ") -> torch.device:
    """Make a device current and return it; `auto` takes an npu, else cuda, else the cpu.

    Raises ValueError where that device is not there; `index_source` is what gave the index.
    """
    kind = _present_kind(kind)
    if kind == "cpu":
        return torch.device("cpu")
    num_devices = torch.accelerator.device_count()
    if not 0 <= index < num_devices:
        raise ValueError(f"{index_source}{index}: this machine has {kind} 0..{num_devices - 1}")
    torch.accelerator.set_device_index(index)
    return torch.device(kind, index)


def num_devices(kind: str) -> int | None:
    """Return how many devices of `kind` (or of what `auto` takes) there are; None for the cpu.

    Raises ValueError where there is none.
    """
    kind = _present_kind(kind)
    return None if kind == "cpu" else torch.accelerator.device_count()


def describe(device: torch.device) -> str:
    """Return the device with its product name, for the log."""
    if device.type == "cpu":
        return (
            f"cpu ({platform.processor() or platform.machine()}, {torch.get_num_threads()} threads)"
        )
    return f"{device} ({_module(device).get_device_name(device)})"


def collective_backend(device: torch.device) -> str:
    """Return the torch.distributed backend that moves this device's tensors."""
    return {"npu": "hccl", "cuda": "nccl", "cpu": "gloo"}[device.type]


def default_precision(device: torch.device) -> str:
    """Return what TRAIN.PRECISION auto means: mixed fp16 on accelerators, fp32 on the cpu."""
    return "fp32" if device.type == "cpu" else "fp16"


def memory_format(device: torch.device, wanted: str = "auto") -> torch.memory_format:
    """Return the layout of images in memory: the convolution-friendly one, or the one `wanted`.

    Raises ValueError for channels_last on npu, which refuses it.
    """
    if device.type == "npu" and wanted == "channels_last":
        raise ValueError("TRAIN.MEMORY_FORMAT channels_last: npu has none; leave it at auto")
    if wanted == "contiguous" or device.type == "npu":
        return torch.contiguous_format
    return torch.channels_last


def configure(device: torch.device, *, cudnn_benchmark: bool, cudnn_deterministic: bool) -> None:
    """Set what must stand before the model moves: cuDNN's choices, npu's compile mode.

    On the cpu, freed memory is kept for the next step.
    """
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = cudnn_benchmark and not cudnn_deterministic
        torch.backends.cudnn.deterministic = cudnn_deterministic
    elif device.type == "npu":
        npu = _module(device)
        npu.set_compile_mode(jit_compile=False)
        npu.config.allow_internal_format = False


def allow_hf32(device: torch.device, allowed: bool) -> None:
    """Let float32 convolutions and matrix products round their inputs (hf32; tf32 on cuda).

    torch_npu allows it for convolutions by default, so plain fp32 has to forbid it.
    """
    if device.type == "npu":
        npu = _module(device)
        npu.conv.allow_hf32 = allowed
        npu.matmul.allow_hf32 = allowed
    elif device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cuda.matmul.allow_tf32 = allowed


def compiled(network: nn.Module, device: torch.device, mode: str) -> nn.Module:
    """Return the network as torch.compile makes it in `mode`, or itself for "no".

    Parameters are shared, and shapes are taken as they come: another batch size compiles anew.
    Raises ValueError on npu, whose compiler is a package of its own.
    """
    if mode == "no":
        return network
    if device.type == "npu":
        raise ValueError(f"TRAIN.COMPILE {mode}: not on npu; leave it at no")
    return torch.compile(network, mode=mode, dynamic=False)  # type: ignore[return-value]


def forget_compiled() -> None:
    """Let torch.compile begin anew; what was compiled before is compiled again when it is used.

    It keeps few variants of a class's forward pass, of all networks together, and then computes
    the next ones eagerly with no more than a warning.
    """
    torch.compiler.reset()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the most memory that tensors held at once, in MiB; None on the cpu."""
    return None if device.type == "cpu" else _module(device).max_memory_allocated(device) / 2**20


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mib` count from here; nothing on the cpu."""
    if device.type != "cpu":
        _module(device).reset_peak_memory_stats(device)


def rng_state(device: torch.device) -> torch.Tensor | None:
    """Return the device generator's state (uint8); None on the cpu: torch itself has it."""
    return None if device.type == "cpu" else _module(device).get_rng_state(device)


def set_rng_state(state: torch.Tensor, device: torch.device) -> None:
    """Put a state of `rng_state` back."""
    _module(device).set_rng_state(state, device)


def grad_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Return the dynamic loss scaler for fp16.

    On npu it is torch_npu's own: on chips without INF/NAN mode (Ascend 910A) only that one sees
    an overflow.
    """
    if device.type == "npu":
        return _module(device).amp.GradScaler()
    return torch.amp.GradScaler(device.type)


def sgd(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, object]],
    device: torch.device,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Return the device's fastest SGD: NpuFusedSGD for fp32/fp16 weights, torch's fused one.

    `parameters` may be groups, which say in `params` what they hold.
    """
    given: list[nn.Parameter] | list[dict[str, object]] = list(parameters)  # type: ignore[assignment]
    tensors: list[nn.Parameter] = []
    for one in given:
        tensors += one["params"] if isinstance(one, dict) else [one]  # type: ignore[arg-type]
    fusable = fused and all(p.dtype in (torch.float32, torch.float16) for p in tensors)
    if device.type == "npu" and fusable:
        return _import_torch_npu().optim.NpuFusedSGD(
            given, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
    optimizer = torch.optim.SGD(
        given,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        fused=(fused and has_fused_optimizers(device)) or None,
    )
    if momentum and fused and has_fused_optimizers(device):
        # torch's fused kernel makes these from uninitialised memory, and an overflow on the first
        # fp16 step leaves them so. From zeros the first step is the same: momentum * 0 + gradient.
        for parameter in tensors:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def has_fused_optimizers(device: torch.device) -> bool:
    """Tell whether torch's `fused=True` optimizers run there."""
    return device.type in ("cuda", "cpu")


def keeps_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether gradients must be zeroed in place: NpuFusedSGD refuses set_to_none."""
    return type(optimizer).__name__.startswith("NpuFused")


def profiler(device: torch.device, folder: Path, *, first_step: int) -> AbstractContextManager:
    """Return a profiler of a few steps from `first_step` on; traces for TensorBoard in `folder`.

    Enter it, call `.step()` after each training step.
    """
    module = _import_torch_npu().profiler if device.type == "npu" else torch.profiler
    return module.profile(
        schedule=module.schedule(
            wait=first_step, warmup=PROFILER_WARMUP_STEPS, active=_PROFILED_STEPS, repeat=1
        ),
        on_trace_ready=module.tensorboard_trace_handler(str(folder)),
    )


def _present_kind(kind: str) -> str:
    """Return `kind`, or what `auto` takes; raise ValueError where this machine has none."""
    if kind not in ("auto", *KINDS):
        raise ValueError(f"--device {kind!r} is not one of auto, {', '.join(KINDS)}")
    if kind == "npu":
        _import_torch_npu()
    accelerator = _accelerator()
    if kind == "auto":
        return accelerator or "cpu"
    if kind not in ("cpu", accelerator):
        raise ValueError(
            f"--device {kind}: there is none on this machine; try --device {accelerator or 'cpu'}"
        )
    return kind


def _accelerator() -> str | None:
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    return accelerator.type if accelerator is not None and accelerator.type in KINDS else None


def _module(device: torch.device) -> ModuleType:
    return torch.get_device_module(device)


def _import_torch_npu() -> ModuleType:
    try:
        return importlib.import_module("torch_npu")
    except Exception as error:  # its libraries, its own checks, another torch than it was made for
        raise ValueError(f"--device npu: {torch_npu_refusal(error)}") from None
