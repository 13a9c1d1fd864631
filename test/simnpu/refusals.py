"""Does what torch_npu refuses, and prints what the simulated npu says to each as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import torch
from torch.nn import functional as F

NPU = torch.device("npu", 0)


def channels_last() -> None:
    torch.ones(1, 3, 4, 4).to(NPU, memory_format=torch.channels_last)


def channels_last_of_a_module() -> None:
    torch.nn.Conv2d(3, 4, 3).to(NPU).to(memory_format=torch.channels_last)


def targets_left_on_the_host() -> None:
    F.cross_entropy(torch.ones(2, 3, device=NPU), torch.tensor([0, 1]))


def images_left_on_the_host() -> None:
    torch.nn.Linear(3, 4).to(NPU)(torch.ones(1, 3))


def tensors_of_two_devices() -> None:
    torch.ones(2, device=NPU) + torch.ones(2, device="npu:1")


def fused_sgd_of_bfloat16() -> None:
    weight = torch.nn.Parameter(torch.ones(2, device=NPU, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    fused_sgd(weight).step()


def gradients_set_to_none() -> None:
    fused_sgd(torch.nn.Parameter(torch.ones(2, device=NPU))).zero_grad(set_to_none=True)


def fused_sgd(weight: torch.nn.Parameter) -> torch.optim.Optimizer:
    from torch_npu.optim import NpuFusedSGD

    return NpuFusedSGD([weight], lr=0.1)


def hf32_by_a_number() -> None:
    torch.npu.conv.allow_hf32 = 1


def reading_the_internal_format() -> None:
    print(torch.npu.config.allow_internal_format)


def scaler_state_of_torchs_own() -> None:
    torch.npu.amp.GradScaler().load_state_dict(torch.amp.GradScaler("cpu").state_dict())


def scaling_on_the_host() -> None:
    torch.npu.amp.GradScaler().scale(torch.ones(()))


def use_in_a_forked_child() -> None:
    """The child's words come back through a pipe."""
    torch.ones(1, device=NPU)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, said_to(lambda: torch.ones(1, device=NPU)).encode())
        os._exit(0)
    os.wait()
    raise RuntimeError(os.read(reader, 1000).decode())


def said_to(refused: Callable[[], None]) -> str:
    try:
        refused()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return "nothing"


if __name__ == "__main__":
    tried = (
        channels_last,
        channels_last_of_a_module,
        targets_left_on_the_host,
        images_left_on_the_host,
        tensors_of_two_devices,
        fused_sgd_of_bfloat16,
        gradients_set_to_none,
        hf32_by_a_number,
        reading_the_internal_format,
        scaler_state_of_torchs_own,
        scaling_on_the_host,
        use_in_a_forked_child,
    )
    print(json.dumps({function.__name__: said_to(function) for function in tried}))
