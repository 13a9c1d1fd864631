"""What is installed on this machine, read from files, package metadata and the drivers' tools."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.runtime.environment import CannVariables, installed_version, num_cores

# As test/env_npu.sh looks for them: cann/ is the layout from CANN 8.5 on, the others are older.
_SET_ENV_SCRIPTS = (
    ("cann/set_env.sh", "cann"),
    ("ascend-toolkit/set_env.sh", "ascend-toolkit/latest"),
    ("ascend-toolkit/latest/set_env.sh", "ascend-toolkit/latest"),
    ("nnae/set_env.sh", "nnae/latest"),
)
_VERSION_FILES = (
    "*-linux/ascend_*_install.info",
    "ascend_*_install.info",
    "opp/version.info",
    "runtime/version.info",
)
NPU_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")  # in /dev, beside the cards' davinci0...
_PACKAGES = ("torch", "torch_npu", "torchvision", "numpy")
_TOOL_TIMEOUT_S = 30


@dataclass(frozen=True)
class Cann:
    """A CANN: its folder, its release ('' where unknown), and the script that sets it up."""

    home: Path
    version: str
    set_env: Path | None = None
    sourced: bool = False  # this process's environment names it

    @property
    def exists(self) -> bool:
        """False where the environment names a folder that is not there."""
        return self.home.is_dir()


@dataclass(frozen=True)
class Facts:
    """What was found. Sizes are in bytes, None where they are unknown."""

    python: tuple[int, ...]
    machine: str
    versions: Mapping[str, str]  # of what is installed
    requirements: tuple[tuple[str, str], ...]  # (distribution, least version)
    apex: str  # absent, ascend, nvidia or unrelated
    cann: Cann | None
    drivers: Mapping[str, str]  # of npu and cuda, where there is one
    num_cards: Mapping[str, int]  # by the nodes in /dev
    missing_nodes: tuple[str, ...]  # of those that every npu needs
    num_cores: int
    folder: Path  # where a run would write
    memory: int | None = None
    memory_free: int | None = None
    shared_memory_free: int | None = None
    disk_free: int | None = None
    environment_error: str = ""  # why the variables cannot be used


def gather(
    cann: CannVariables,
    *,
    requirements: Path,
    folder: Path,
    root: Path = Path("/"),
    environment_error: str = "",
) -> Facts:
    """Look at this machine.

    Args:
        cann: what the environment says about CANN.
        requirements: the requirements file, which says what training imports.
        folder: where a run would write.
        root: the file system; another one in tests.
        environment_error: what was wrong with the environment, for the report.
    """
    listed = _requirements(requirements)
    installed = {
        name: installed_version(name) for name in (*_PACKAGES, "apex", *(n for n, _ in listed))
    }
    memory, memory_free = _memory(root)
    return Facts(
        python=sys.version_info[:3],
        machine=platform.machine(),
        versions={name: version for name, version in installed.items() if version},
        requirements=listed,
        apex=_apex(),
        cann=_find_cann(cann, root),
        drivers=_drivers(root),
        num_cards=_num_cards(root),
        missing_nodes=tuple(n for n in NPU_NODES if not (root / "dev" / n).exists()),
        num_cores=num_cores(),
        folder=folder.absolute(),
        memory=memory,
        memory_free=memory_free,
        shared_memory_free=_free(root / "dev" / "shm"),
        disk_free=_free(folder),
        environment_error=environment_error,
    )


def _requirements(path: Path) -> tuple[tuple[str, str], ...]:
    """Return (name, least version) of each line `name>=version`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(re.findall(r"^([A-Za-z][\w.-]*)>=([\w.]+)", "\n".join(lines), re.MULTILINE))


def _apex() -> str:
    """Tell the packages named apex apart; the one that `pip install apex` gives has no amp."""
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return "absent"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not any((folder / "amp").is_dir() for folder in folders):
        return "unrelated"
    return "ascend" if "ascend" in installed_version("apex") else "nvidia"


def _find_cann(variables: CannVariables, root: Path) -> Cann | None:
    """Return the CANN that the environment names, else the first installed one."""
    found = _installed_cann(variables, root)
    if not variables.home:
        return found
    home = _below(root, variables.home)
    scripts = [path for path in (home / "set_env.sh", home.parent / "set_env.sh") if path.is_file()]
    set_env = scripts[0] if scripts else found.set_env if found else None
    return Cann(home, _cann_version(home), set_env, sourced=True)


def _installed_cann(variables: CannVariables, root: Path) -> Cann | None:
    noted = _key(_below(root, variables.info_file), "Install_Path")
    for folder in filter(None, (noted, variables.root)):
        for script, home_name in _SET_ENV_SCRIPTS:
            set_env = _below(root, folder) / script
            if set_env.is_file():
                home = _below(root, folder) / home_name
                home = home if home.is_dir() else set_env.parent
                return Cann(home, _cann_version(home), set_env)
    return None


def _below(root: Path, path: str) -> Path:
    """Return an absolute path as it is in the file system at `root`."""
    return root / path.lstrip("/") if path.startswith("/") else Path(path)


def _cann_version(home: Path) -> str:
    for pattern in _VERSION_FILES:
        for path in sorted(home.glob(pattern)):
            if version := _key(path, "version_dir") or _key(path, "version"):
                return version
    # cann is a link to cann-8.5.0
    match = re.fullmatch(r"(?:cann-)?(\d+\.\d+\.\w+)", home.resolve().name)
    return match[1] if match else ""


def _key(path: Path, key: str) -> str:
    """Return the value of the first line `key=value` of a file, '' where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^\s*{key}\s*[=:]\s*(\S.*?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else ""


def _drivers(root: Path) -> dict[str, str]:
    heading = re.search(r"Version:\s*(\S+)", output_of("npu-smi", "info"))
    npu = heading[1] if heading else _key(root / "usr/local/Ascend/driver/version.info", "version")
    query = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = {"npu": npu, "cuda": query.split("\n")[0].strip()}
    return {kind: version for kind, version in found.items() if version}


def _num_cards(root: Path) -> dict[str, int]:
    nodes = {"npu": "davinci[0-9]*", "cuda": "nvidia[0-9]*"}
    return {kind: len(list((root / "dev").glob(pattern))) for kind, pattern in nodes.items()}


def output_of(program: str, *arguments: str, timeout_s: float = _TOOL_TIMEOUT_S) -> str:
    """Return what a program prints; '' where it is not there, fails or takes longer."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Return all and available memory; a container's limit counts as all."""
    lines = [_key(root / "proc/meminfo", key) for key in ("MemTotal", "MemAvailable")]
    sizes = [int(line.split()[0]) * 1024 if line else None for line in lines]
    limit = _first_line(root / "sys/fs/cgroup/memory.max")
    if limit.isdigit():
        sizes = [min(int(limit), size) if size is not None else size for size in sizes]
    return sizes[0], sizes[1]


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
