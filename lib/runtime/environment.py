"""The one place that reads the process environment; and what else surrounds the process."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LAUNCH_VARIABLE = "HRNET_LAUNCH_ID"  # set for the processes that this program starts
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_MOST_WORKERS, _MOST_WORKERS_A_CORE = 32, 8  # some wait for slow storage meanwhile
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class RankInfo:
    """Where this process stands among all processes of the run, as its launcher said."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    restart_count: int = 0  # how often an elastic launcher has restarted the processes
    launch_id: str = ""  # the same for all attempts of one launch

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and console lines."""
        return self.rank == 0


@dataclass(frozen=True)
class Environment:
    """Everything the programs take from environment variables."""

    ranks: RankInfo
    launched: bool  # started by torchrun: the rank variables are set
    ascend_device_id: int | None
    allow_hf32: bool
    allow_fp32: bool
    profile: bool
    profile_start_step: int


@dataclass(frozen=True)
class CannVariables:
    """Where the environment says that CANN is, Ascend's toolkit."""

    home: str = ""  # of the CANN whose set_env.sh was sourced; empty where none was
    info_file: str = "/etc/Ascend/ascend_cann_install.info"  # the installer's note
    root: str = "/usr/local/Ascend"  # tried after the note, as test/env_npu.sh does


@dataclass(frozen=True)
class CacheVariables:
    """Where downloaded weights are kept, as the variables of huggingface_hub and torch say."""

    hub: Path  # models--<owner>--<name>/ of huggingface_hub
    checkpoints: Path  # of torch.hub: plain files
    hub_mirror: str  # address to use in place of the Hugging Face hub's; empty: none
    offline: bool  # what is not in the hub's cache may not be asked for


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Read the variables (default: the process's own).

    Raises ValueError for a partial rank environment, a rank outside 0..WORLD_SIZE-1, or a value
    that is not of its kind.
    """
    variables = _own() if variables is None else variables
    device_id = variables.get("ASCEND_DEVICE_ID", "")
    return Environment(
        ranks=_rank_info(variables),
        launched="RANK" in variables,
        ascend_device_id=_integer("ASCEND_DEVICE_ID", device_id) if device_id else None,
        allow_hf32=_switch("ALLOW_HF32", variables),
        allow_fp32=_switch("ALLOW_FP32", variables),
        profile=variables.get("PROFILE_TYPE", "").strip().lower() not in _NO,
        profile_start_step=_integer(
            "PROFILE_START_STEP", variables.get("PROFILE_START_STEP") or "10"
        ),
    )


def is_started_copy() -> bool:
    """Tell whether this process is one of several that this program has started."""
    return LAUNCH_VARIABLE in _own()


def read_cann_variables(variables: Mapping[str, str] | None = None) -> CannVariables:
    """Read where CANN is (default: from the process's own variables); never raises."""
    variables = _own() if variables is None else variables
    usual = CannVariables()
    return CannVariables(
        home=variables.get("ASCEND_HOME_PATH") or variables.get("ASCEND_TOOLKIT_HOME") or "",
        info_file=variables.get("CANN_INFO_FILE") or usual.info_file,
        root=variables.get("ASCEND_ROOT") or usual.root,
    )


def read_cache_variables(variables: Mapping[str, str] | None = None) -> CacheVariables:
    """Read HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, TORCH_HOME and XDG_CACHE_HOME.

    They mean what they mean to huggingface_hub and torch.hub (default: the process's own).
    """
    variables = _own() if variables is None else variables

    def folder(*names: str, otherwise: str) -> str:
        given = next((variables[name] for name in names if variables.get(name)), otherwise)
        return os.path.expanduser(os.path.expandvars(given))

    caches = variables.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    hub_home = folder("HF_HOME", otherwise=os.path.join(caches, "huggingface"))
    torch_home = folder("TORCH_HOME", otherwise=os.path.join(caches, "torch"))
    hub = folder("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", otherwise=os.path.join(hub_home, "hub"))
    return CacheVariables(
        Path(hub),
        Path(torch_home, "hub", "checkpoints"),
        variables.get("HF_ENDPOINT", "").rstrip("/"),
        variables.get("HF_HUB_OFFLINE", "").strip().lower() in _YES,
    )


def task_queue_level(variables: Mapping[str, str] | None = None) -> str:
    """Return the level of torch_npu's queue of kernels; '' where ASCEND_LAUNCH_BLOCKING ends it.

    It is what TASK_QUEUE_ENABLE says (default: of the process's own variables), 1 unless it does.
    """
    variables = _own() if variables is None else variables
    if variables.get("ASCEND_LAUNCH_BLOCKING", "").strip() == "1":
        return ""
    return variables.get("TASK_QUEUE_ENABLE", "").strip() or "1"


def variables_with(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the process's own variables with some changed, for a process to be started."""
    return {**_own(), **changes}


def num_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_num_workers(name: str, number: int) -> None:
    """Raise ValueError for more processes than can be of use here; `name` is what asks for them."""
    most = max(_MOST_WORKERS, _MOST_WORKERS_A_CORE * num_cores())
    if number > most:
        raise ValueError(
            f"{name} {number}: at most {most} processes on this machine of {num_cores()} cores; "
            "one a core is usual"
        )


def installed_version(distribution: str) -> str:
    """Return the release of a package that is installed; '' where it is not."""
    try:
        return importlib.metadata.version(distribution) or "of unknown version"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _own() -> Mapping[str, str]:
    return os.environ


def _rank_info(variables: Mapping[str, str]) -> RankInfo:
    present = [name for name in _RANK_VARIABLES if name in variables]
    if not present:
        return RankInfo()
    missing = [
        name for name in (*_RANK_VARIABLES, "MASTER_ADDR", "MASTER_PORT") if not variables.get(name)
    ]
    if missing:
        raise ValueError(
            f"{' '.join(present)} set but {' '.join(missing)} missing in the environment: "
            "start several processes with torchrun, or unset them all for a single one"
        )
    rank, local_rank, world_size, local_world_size = (
        _integer(name, variables[name]) for name in _RANK_VARIABLES
    )
    if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
        raise ValueError(
            f"RANK={rank} LOCAL_RANK={local_rank} do not fit WORLD_SIZE={world_size} "
            f"LOCAL_WORLD_SIZE={local_world_size}: ranks count from 0 to size - 1"
        )
    restarts = _integer(
        "TORCHELASTIC_RESTART_COUNT", variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    )
    run_id = variables.get("TORCHELASTIC_RUN_ID", "").removeprefix("none")
    launch_id = variables.get(LAUNCH_VARIABLE, run_id)
    return RankInfo(rank, local_rank, world_size, local_world_size, restarts, launch_id)


def _integer(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(
            f"environment variable {name}={text!r}: a whole number >= 0 is needed"
        ) from None
    if value < 0:
        raise ValueError(f"environment variable {name}={text!r}: a whole number >= 0 is needed")
    return value


def _switch(name: str, variables: Mapping[str, str]) -> bool:
    text = variables.get(name, "").strip().lower()
    if text not in _YES + _NO:
        raise ValueError(
            f"environment variable {name}={text!r}: one of {', '.join(_YES + _NO[1:])}"
        )
    return text in _YES
