"""Compiles the simulated npu and puts it where one entry of PYTHONPATH finds it.

    PYTHONPATH=$(python test/simnpu/build.py) python tools/train.py ... --device npu

Compiled once for a torch and a state of the sources, in about a minute; kept outside the
repository, in the user's cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
_PACKAGE, _METADATA = "torch_npu", "torch_npu-0+simulated.dist-info"
_LIBRARY = "_C.so"


class CannotBuild(Exception):
    """What is missing to compile, in one line."""


def site_folder() -> Path:
    """Return the folder for PYTHONPATH; compiles where that has not been done.

    Raises CannotBuild without a C++ compiler, ninja or Python's headers, RuntimeError where
    compiling fails.
    """
    cache = _cache_folder()
    library = cache / f"lib-{_key(HERE / 'csrc')}" / _LIBRARY
    site = cache / f"site-{_key(HERE)}"
    with _locked(cache / "lock"):
        if not library.exists():
            _compile(library)
        if not site.exists():
            _install(library, site)
    return site


def _cache_folder() -> Path:
    """The user's cache folder, or a temporary one where that cannot be written."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrnet-simnpu"
    try:
        usual.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            return usual
    except OSError:
        other = Path(tempfile.gettempdir()) / f"hrnet-simnpu-{os.getuid()}"
        other.mkdir(mode=0o700, exist_ok=True)
        if other.stat().st_uid != os.getuid():
            raise CannotBuild(f"the simulated npu has no place: {other} is not yours") from None
        return other


def _key(folder: Path) -> str:
    """What a build depends on: sources, torch, Python."""
    digest = hashlib.sha256(f"{version('torch')} {sys.version}".encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out; the lock of one that dies is free again."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_tools(path: str) -> None:
    for program in (os.environ.get("CXX", "c++").split()[0], "ninja"):
        if shutil.which(program, path=path) is None:
            raise CannotBuild(f"the simulated npu is compiled with {program}, which is not there")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise CannotBuild(f"the simulated npu is compiled with {header}, which is not there")


def _compile(library: Path) -> None:
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}"  # where pip puts ninja
    _check_tools(path)
    # In a process of its own: to load the library makes it that process's accelerator.
    done = subprocess.run(
        [sys.executable, __file__, "--compile", library.parent / "build"],
        env={"MAX_JOBS": "2", **os.environ, "PATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
    )
    built = library.parent / "build" / _LIBRARY
    if done.returncode or not built.exists():
        raise RuntimeError(f"the simulated npu does not compile:\n{done.stdout}\n{done.stderr}")
    built.replace(library)


def _compile_here(folder: Path) -> None:
    from torch.utils.cpp_extension import load

    shutil.rmtree(folder, ignore_errors=True)  # with the lock file of an interrupted build
    folder.mkdir(parents=True)
    load(
        Path(_LIBRARY).stem,
        [str(path) for path in sorted((HERE / "csrc").glob("*.cpp"))],
        extra_cflags=["-O1", "-g0"],
        build_directory=str(folder),
        is_python_module=False,
        verbose=True,
    )


def _install(library: Path, site: Path) -> None:
    """Lay the package out as pip would; at once, so that nobody sees half of it."""
    with tempfile.TemporaryDirectory(dir=site.parent) as scratch:
        half = Path(scratch) / "site"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HERE / "package", half / _PACKAGE, ignore=ignored)
        shutil.copytree(HERE / "dist-info", half / _METADATA)
        (half / _PACKAGE / _LIBRARY).symlink_to(library)
        half.rename(site)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compile"]:
        _compile_here(Path(sys.argv[2]))
    else:
        print(site_folder())
