"""Which releases of CANN, torch_npu, torch and torchvision belong together, and how to get them."""

from __future__ import annotations

import re

# torch_npu's own table of releases (its COMPATIBILITY document), from torch 2.6 on. The first of a
# row is the one that requirements_npu.txt names. Against torch a post release counts as its base,
# against CANN it does not: 2.9.0 is for CANN 8.5.0, 2.9.0.post6 for 9.1.0.
TORCH_NPU_FOR_CANN = {
    "9.1.0": (
        *("2.12.0", "2.11.0", "2.10.0.post4", "2.9.0.post6", "2.7.1.post8"),
        *("2.12.0.post2", "2.11.0.post2", "2.10.0.post6", "2.9.0.post8", "2.7.1.post10"),
    ),
    "9.0.0": ("2.10.0", "2.9.0.post2", "2.8.0.post4", "2.7.1.post4"),
    "8.5.0": ("2.9.0", "2.8.0.post2", "2.7.1.post2", "2.6.0.post5"),
    "8.3.RC1": ("2.8.0", "2.7.1", "2.6.0.post3"),
    "8.2.RC1": ("2.6.0",),
}
PINNED_CANN = "8.5.0"  # in requirements_npu.txt
TORCHVISION_AHEAD = 15  # torchvision 0.15 came with torch 2.0, and both count on together
_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def base_version(version: str) -> str:
    """Return 2.9.0 for 2.9.0, 2.9.0+cpu, 2.9.0.post2 and 2.9.0rc1."""
    match = re.match(r"\d+(\.\d+)*", version)
    return match[0] if match else version


def numbers(version: str) -> tuple[int, ...]:
    """Return (2, 9, 0) for 2.9.0.post2."""
    return tuple(int(number) for number in re.findall(r"\d+", base_version(version)))


def torch_command(plugin: str, machine: str) -> str:
    """Return the command that installs the torch and torchvision which that torch_npu needs.

    On x86-64 most torch_npu wheels ask for torch's CPU wheel by name, which PyPI does not have.
    """
    torch = base_version(plugin)
    major, minor, *patch = torch.split(".")
    torchvision = ".".join(["0", str(int(minor) + TORCHVISION_AHEAD), *patch])
    if machine != "x86_64":
        return f"pip install torch=={torch} torchvision=={torchvision}"
    return (
        f"pip install torch=={torch}+cpu torchvision=={torchvision}+cpu --index-url {_CPU_WHEELS}"
    )


def torch_npu_command(plugin: str, machine: str) -> str:
    """Return the commands that install a torch_npu and what it needs."""
    return f"{torch_command(plugin, machine)} && pip install torch_npu=={plugin}"


def requirements_command(cann: str, machine: str) -> str:
    """Return the commands that install all that training needs for a CANN ('' where unknown)."""
    pinned = TORCH_NPU_FOR_CANN[PINNED_CANN][0]
    plugin = TORCH_NPU_FOR_CANN.get(cann.upper(), (pinned,))[0]
    if plugin != pinned:
        return f"{torch_npu_command(plugin, machine)} -r requirements.txt"
    command = "pip install -r requirements_npu.txt"
    return f"{torch_command(pinned, machine)} && {command}" if machine == "x86_64" else command
