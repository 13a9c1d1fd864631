"""What the facts mean for training, with the line that mends each misfit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lib.runtime.cli import SEE_DOCTOR, accelerators_collide, lacks_cann
from lib.runtime.doctor.facts import Facts
from lib.runtime.doctor.probe import RAISED, Probe
from lib.runtime.doctor.releases import (
    TORCH_NPU_FOR_CANN,
    TORCHVISION_AHEAD,
    base_version,
    numbers,
    requirements_command,
    torch_command,
    torch_npu_command,
)

OK, WARNING, PROBLEM = "ok", "warning", "problem"
OLDEST_PYTHON = (3, 10)
GIB = 2**30
# What the launchers' workers hand over: batches of 256 uint8 pictures, two ahead a worker.
_SHARED_BYTES_A_WORKER = 2 * 256 * 224 * 224 * 3
# Four bytes a weight: checkpoint (weights and momentum), its copy while it is written, best, final.
_DISK_LEAST = 6 * 4 * 21_299_004  # hrnet_w18
_DISK_AMPLE = 6 * 4 * 128_059_944  # hrnet_w64
_CONTAINER_NODES = " ".join(
    f"--device=/dev/{node}" for node in ("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc")
)


@dataclass(frozen=True)
class Finding:
    """One verdict: its level, what was seen, and the line that mends it ('' where all is well)."""

    level: str
    text: str
    fix: str = ""


def judge(facts: Facts, probe: Probe) -> list[Finding]:
    """Return every verdict; training cannot start where one of them is a problem."""
    return [
        *_environment(facts),
        *_packages(facts),
        *_torch_npu(facts, probe),
        *_torchvision(facts),
        *_apex(facts, probe),
        *_import(facts, probe),
        *_device(facts, probe),
        *_shared_memory(facts),
        *_disk(facts),
    ]


def _environment(facts: Facts) -> Iterator[Finding]:
    python = ".".join(map(str, facts.python))
    if facts.python[:2] < OLDEST_PYTHON:
        fix = "python3.11 -m venv .venv && source .venv/bin/activate, then install again"
        yield Finding(PROBLEM, f"Python {python}: 3.10 or newer is needed", fix)
    else:
        yield Finding(OK, f"Python {python}")
    if facts.environment_error:
        text, _, advice = facts.environment_error.partition(": ")
        yield Finding(PROBLEM, text, advice)


def _packages(facts: Facts) -> Iterator[Finding]:
    missing = [name for name, _ in facts.requirements if name not in facts.versions]
    old = [
        f"{name} {facts.versions[name]} (needed: {least})"
        for name, least in facts.requirements
        if numbers(facts.versions.get(name, "")) < numbers(least) and name not in missing
    ]
    wants_npu = facts.num_cards["npu"] or facts.cann or "torch_npu" in facts.versions
    fix = _npu_requirements(facts) if wants_npu else "pip install -r requirements.txt"
    if missing:
        yield Finding(PROBLEM, f"not installed: {', '.join(missing)}", fix)
    if old:
        yield Finding(PROBLEM, f"too old: {', '.join(old)}", fix)
    if not missing and not old:
        yield Finding(OK, "all packages of requirements.txt are installed")


def _npu_requirements(facts: Facts) -> str:
    return requirements_command(facts.cann.version if facts.cann else "", facts.machine)


def _fitting_torch(facts: Facts) -> str:
    """Return what installs the torch of this torch_npu, or both anew where that is too old."""
    plugin = facts.versions.get("torch_npu", "")
    if _needed_torch(facts) > numbers(plugin):
        return _npu_requirements(facts)
    return torch_command(plugin, facts.machine)


def _needed_torch(facts: Facts) -> tuple[int, ...]:
    return numbers(dict(facts.requirements).get("torch", ""))


def _torch_npu(facts: Facts, probe: Probe) -> Iterator[Finding]:
    plugin, torch = (facts.versions.get(name, "") for name in ("torch_npu", "torch"))
    if not plugin:
        return
    base = base_version(plugin)
    if torch and base_version(torch) != base:
        text = f"torch_npu {plugin} needs torch {base}, and torch {torch} is installed"
        # A pair that computes may be trained with. And with TORCH_DEVICE_BACKEND_AUTOLOAD=0 the
        # rest of torch works all the same.
        level = WARNING if probe.computed or probe.kind in ("cpu", "cuda") else PROBLEM
        if _needed_torch(facts) > numbers(plugin):
            text += f"; {dict(facts.requirements)['torch']} or newer is needed here"
        yield Finding(level, text, _fitting_torch(facts))
    elif torch:
        yield Finding(OK, f"torch {torch} and torch_npu {plugin} fit")
    if facts.cann and facts.cann.exists:
        yield _cann_fit(facts.cann.version, plugin, facts.machine)


def _cann_fit(cann: str, plugin: str, machine: str) -> Finding:
    fitting = TORCH_NPU_FOR_CANN.get(cann.upper(), ())
    if plugin.partition("+")[0] in fitting:
        return Finding(OK, f"CANN {cann} and torch_npu {plugin} fit")
    if fitting:
        text = f"torch_npu {plugin} is not for CANN {cann}, which goes with {', '.join(fitting)}"
        return Finding(WARNING, text, torch_npu_command(fitting[0], machine))
    known = ", ".join(TORCH_NPU_FOR_CANN)
    text = f"whether CANN {cann or 'of unknown version'} and torch_npu {plugin} fit is not known"
    return Finding(WARNING, text, f"look it up in torch_npu's table; known here: CANN {known}")


def _torchvision(facts: Facts) -> Iterator[Finding]:
    torchvision, torch = (facts.versions.get(name, "") for name in ("torchvision", "torch"))
    if not torchvision or numbers(torch)[:1] != (2,):
        return
    minor = numbers(torch)[1] + TORCHVISION_AHEAD
    if numbers(torchvision)[:2] == (0, minor):
        yield Finding(OK, f"torch {torch} and torchvision {torchvision} fit")
    else:
        pair = f"torch {torch} and torchvision {torchvision}"
        text = f"{pair} do not fit (AUG.AUTO, AUG.ERASE and tests import it)"
        yield Finding(WARNING, text, f"pip install 'torchvision==0.{minor}.*' torch=={torch}")


def _apex(facts: Facts, probe: Probe) -> Iterator[Finding]:
    version = facts.versions.get("apex", "of unknown version")
    if facts.apex == "unrelated":
        text = f"apex {version} is another package of that name, without mixed precision"
        fix = "pip uninstall apex; TRAIN.AMP_BACKEND torch needs none, Ascend's is its own wheel"
        yield Finding(WARNING, text, fix)
    elif facts.apex == "nvidia" and probe.kind == "npu":
        text = f"apex {version} does not seem to be Ascend's"
        yield Finding(WARNING, text, "take TRAIN.AMP_BACKEND torch, or install Ascend's apex wheel")


def _import(facts: Facts, probe: Probe) -> Iterator[Finding]:
    """What became of `import torch`; nothing where torch is not even there."""
    if probe.imported or "torch" not in facts.versions:
        return
    text = f"import torch fails: {probe.error}"
    if accelerators_collide(probe.log):
        text = "import torch fails: torch_npu cannot be loaded beside a visible CUDA device"
        fix = (
            "export CUDA_VISIBLE_DEVICES= to train on the NPU, or TORCH_DEVICE_BACKEND_AUTOLOAD=0 "
            "to train on CUDA"
        )
    elif "torch_npu" in probe.log:
        cause = (RAISED.findall(probe.log) or [probe.error])[0].strip()  # torch's own comes after
        text = f"import torch fails, since torch_npu cannot be loaded: {cause}"
        fix = (
            f"{_loading_fix(facts, cause)}; or export TORCH_DEVICE_BACKEND_AUTOLOAD=0 to train "
            "without it"
        )
    else:
        fix = "python -c 'import torch' shows all of it; pip install --force-reinstall torch"
    yield Finding(PROBLEM, text, fix)


def _loading_fix(facts: Facts, cause: str) -> str:
    """Return what mends a torch_npu that cannot be loaded because of `cause`."""
    if lacks_cann(cause):
        return _cann_fix(facts)
    module = re.search(r"No module named '([^'.]+)", cause)
    if module and module[1] != "torch_npu":
        return f"install the package that has {module[1]}, see CANN's installation guide"
    plugin = facts.versions.get("torch_npu", "")
    if _needed_torch(facts) > numbers(plugin):
        return _npu_requirements(facts)
    return torch_npu_command(plugin, facts.machine)


def _cann_fix(facts: Facts) -> str:
    cann = facts.cann
    if cann is None:
        return "install CANN and source its set_env.sh (none was found)"
    if cann.sourced and not cann.exists:
        again = f"source {cann.set_env}" if cann.set_env else "source the set_env.sh of yours"
        return f"{cann.home}, which the environment names as CANN, is not there: {again}"
    if not cann.sourced:
        return f"source {cann.set_env}"
    return f"CANN at {cann.home} lacks what torch_npu loads: install its toolkit and ops packages"


def _device(facts: Facts, probe: Probe) -> Iterator[Finding]:
    if not probe.imported:
        return
    if not probe.computed:
        yield _no_device(facts, probe)
        return
    yield Finding(OK, f"torch computes on {probe.names[0]}")
    if probe.kind != "cpu":
        return
    if facts.num_cards["cuda"]:
        text = "there are CUDA devices, but torch sees none"
        yield Finding(WARNING, text, "nvidia-smi shows the driver; install a torch built for CUDA")
    if facts.num_cards["npu"] and "torch_npu" not in facts.versions:
        text = "there are NPUs, but no torch_npu"
        yield Finding(WARNING, text, _npu_requirements(facts))
    elif "torch_npu" in facts.versions:
        yield _unseen_npu(facts)


def _no_device(facts: Facts, probe: Probe) -> Finding:
    refused = probe.error.partition("ValueError: ")[2]
    if (
        refused and not probe.kind
    ):  # lib/runtime/device.py's own words, with its advice at their end
        text, _, advice = refused.removesuffix(f"; {SEE_DOCTOR}").rpartition("; ")
        if "torch_npu" in text and "torch_npu" not in facts.versions:
            advice = f"{_npu_requirements(facts)}; or take --device cuda or cpu"
        return Finding(PROBLEM, text, advice)
    where = f" on {probe.kind}" if probe.kind else ""
    fix = "npu-smi info or nvidia-smi shows whether the device answers; try --device cpu"
    return Finding(PROBLEM, f"torch cannot compute{where}: {probe.error}", fix)


def _unseen_npu(facts: Facts) -> Finding:
    text = "torch_npu is installed, but torch sees no NPU"
    if facts.cann is None or not facts.cann.exists or not facts.cann.sourced:
        return Finding(WARNING, text, _cann_fix(facts))
    nodes = [*([] if facts.num_cards["npu"] else ["davinci0"]), *facts.missing_nodes]
    if nodes:
        missing = ", ".join(f"/dev/{node}" for node in nodes)
        fix = f"in a container: docker run {_CONTAINER_NODES} and the driver's folder"
        return Finding(WARNING, f"{text}: {missing} not there", fix)
    fix = "unset TORCH_DEVICE_BACKEND_AUTOLOAD and ASCEND_RT_VISIBLE_DEVICES; see npu-smi info"
    return Finding(WARNING, text, fix)


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    needed = facts.num_cores * _SHARED_BYTES_A_WORKER
    free = facts.shared_memory_free or 0
    if free >= needed:
        yield Finding(OK, f"/dev/shm has {free / GIB:.1f} GiB free for data-loading processes")
        return
    text = (
        f"/dev/shm has {free / GIB:.2f} GiB free; {facts.num_cores} data-loading processes with "
        f"batches of 256 pictures take up to {needed / GIB:.2f} GiB"
    )
    size = int(needed / GIB) + 1
    yield Finding(WARNING, text, f"docker run --shm-size={size}g, or a smaller --workers or --bs")


def _disk(facts: Facts) -> Iterator[Finding]:
    if facts.disk_free is None:
        return
    text = f"{facts.disk_free / GIB:.1f} GiB free in {facts.folder}"
    fix = "free some, or put the run folder elsewhere with --out"
    if facts.disk_free < _DISK_LEAST:
        need = f"the checkpoints of hrnet_w18 alone take {_DISK_LEAST / GIB:.1f} GiB"
        yield Finding(PROBLEM, f"only {text}: {need}", fix)
    elif facts.disk_free < _DISK_AMPLE:
        need = f"the checkpoints of hrnet_w64 take {_DISK_AMPLE / GIB:.1f} GiB"
        yield Finding(WARNING, f"only {text}: {need}", fix)
    else:
        yield Finding(OK, text)
