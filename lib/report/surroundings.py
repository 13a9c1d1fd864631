"""What a run computed with: device, versions, machine; environment.json of the run folder."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lib import device as devices
from lib.doctor import Probe, gather
from lib.doctor.report import fact_lines
from lib.environment import read_cann_variables

_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
_NO_FILE = Path(os.devnull)  # where the library is installed without the repository around it
_FACTS = ("driver", "torch", "Python", "NumPy", "memory", "cores")
_NPU_FACTS = ("CANN", "torch_npu", "apex")
_PACKAGES = ("pillow", "simplejpeg")  # they make the pixels


def surroundings(device: torch.device, *, num_cards: int, precision: str) -> dict[str, str]:
    """Return what this process computes with as {name: value}, in the order to show it."""
    facts = gather(read_cann_variables(), requirements=_requirements(), folder=Path())
    lines = fact_lines(facts, Probe(kind=device.type, names=(devices.describe(device),)))
    names = (*_FACTS[:1], *_NPU_FACTS, *_FACTS[1:]) if device.type == "npu" else _FACTS
    return {
        "device": devices.describe(device),
        "cards": str(num_cards),
        "precision": precision,
        **{name: lines[name] for name in names},
        "torch": str(torch.__version__),  # with its kind: +cpu, +cu126
        **{name: facts.versions[name] for name in _PACKAGES if name in facts.versions},
    }


def _requirements() -> Path:
    return _REQUIREMENTS if _REQUIREMENTS.is_file() else _NO_FILE
