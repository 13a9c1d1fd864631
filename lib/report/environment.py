"""Device, versions and machine of a run, for environment.json in its folder."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

from lib.runtime import device as devices
from lib.runtime.doctor.facts import gather, output_of
from lib.runtime.doctor.probe import Probe
from lib.runtime.doctor.report import fact_lines
from lib.runtime.environment import read_cann_variables

_REPO = Path(__file__).resolve().parents[2]
_REQUIREMENTS = _REPO / "requirements.txt"
_NO_FILE = Path(os.devnull)  # where the library is installed without the repository around it
_FACTS = ("driver", "torch", "Python", "NumPy", "memory", "cores")
_NPU_FACTS = ("CANN", "torch_npu", "apex")
_PACKAGES = ("pillow", "simplejpeg")  # they make the pixels
_GIT_TIMEOUT_S = 10


def environment_facts(
    device: torch.device, *, num_cards: int, precision: str, command: str = ""
) -> dict[str, str]:
    """Return what this process computes with as {name: value}, in the order to show it.

    `command` is what the run was started with.
    """
    commit = git_commit(_REPO)
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
        **({"git commit": commit} if commit else {}),
        **({"command": command} if command else {}),
    }


@cache
def git_commit(root: Path) -> str:
    """Return the commit that a checkout is at, and whether its files were changed since.

    '' where `root` is no checkout of its own, or git is not installed or refuses it.
    """
    if not (root / ".git").exists():  # a checkout around it is another project
        return ""
    words = ("describe", "--always", "--abbrev=40", "--dirty= with changes", "--exclude=*")
    return output_of("git", "-C", str(root), *words, timeout_s=_GIT_TIMEOUT_S).strip()


def _requirements() -> Path:
    return _REQUIREMENTS if _REQUIREMENTS.is_file() else _NO_FILE
