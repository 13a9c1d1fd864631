"""Compiles the simulated npu and puts it where one entry of PYTHONPATH finds it.

    PYTHONPATH=$(python test/simnpu/build.py) python tools/train.py ... --device npu

Compiled once for a torch and a state of the sources, in about a minute; kept outside the
repository, in the user's cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
_PACKAGE, _LIBRARY = "torch_npu", "_C.so"
_SEAL = "contents.json"
_UNUSED_DAYS = 1  # after which another checkout's build is taken for an old one


class CannotBuild(Exception):
    """What is missing to compile, in one line."""


def site_folder() -> Path:
    """Return the folder for PYTHONPATH; compiles where that has not been done.

    What was built and is damaged is built again. Raises CannotBuild without a C++ compiler, ninja
    or Python's headers, RuntimeError where compiling fails.
    """
    cache = _cache_folder()
    library = cache / f"lib-{_tag()}-{_key(HERE / 'csrc')}" / _LIBRARY
    site = cache / f"site-{_tag()}-{_key(HERE)}"
    with _locked(cache / "lock"):
        if not _is_whole(library.parent):
            shutil.rmtree(library.parent, ignore_errors=True)
            _compile(library)
            _seal(library.parent)
        if not _is_whole(site):
            shutil.rmtree(site, ignore_errors=True)
            _install(library, site)
        for folder in (library.parent, site):
            os.utime(folder)
        _remove_old(cache)
    return site


def _tag() -> str:
    """For what a build is: torch, Python, kind of machine."""
    return f"{version('torch')}-{sys.implementation.cache_tag}-{platform.machine()}"


def _contents(folder: Path) -> dict[str, str]:
    """Return {path: hash} of the files in a folder that was built, but for Python's caches."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _SEAL and "__pycache__" not in path.parts
    }


def _seal(folder: Path) -> None:
    """Write down what a folder holds now that it is whole."""
    (folder / _SEAL).write_text(json.dumps(_contents(folder)))


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder holds what it was sealed with."""
    try:
        return json.loads((folder / _SEAL).read_text()) == _contents(folder)
    except (OSError, ValueError):
        return False


def _remove_old(cache: Path) -> None:
    """Remove the builds of other sources for this torch, unless they were just in use."""
    for folder in [*cache.glob(f"lib-{_tag()}-*"), *cache.glob(f"site-{_tag()}-*")]:
        if time.time() - folder.stat().st_mtime > _UNUSED_DAYS * 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


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
    """What a build depends on beside its tag: the sources, and which Python."""
    digest = hashlib.sha256(sys.version.encode())
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
    compiler = os.environ.get("CXX", "").split() or ["c++"]
    for program in (compiler[0], "ninja"):
        if shutil.which(program, path=path) is None:
            raise CannotBuild(f"the simulated npu is compiled with {program}, which is not there")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise CannotBuild(f"the simulated npu is compiled with {header}, which is not there")


def _compile(library: Path) -> None:
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}"  # where pip puts ninja
    _check_tools(path)
    environment = {"MAX_JOBS": "2", **os.environ, "PATH": path}
    environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    if not environment.get("CXX", "").strip():  # set to nothing, it would be taken as it is
        environment["CXX"] = "c++"
    # In a process of its own: to load the library makes it that process's accelerator.
    done = subprocess.run(
        [sys.executable, __file__, "--compile", library.parent / "build"],
        env=environment,
        capture_output=True,
        text=True,
    )
    built = library.parent / "build" / _LIBRARY
    if done.returncode or not built.exists():
        raise RuntimeError(f"the simulated npu does not compile:\n{done.stdout}\n{done.stderr}")
    built.replace(library)
    shutil.rmtree(built.parent)


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
        fitting = f"{version('torch').partition('+')[0]}+simulated"  # a torch_npu has its torch's
        metadata = half / f"{_PACKAGE}-{fitting}.dist-info"
        shutil.copytree(HERE / "dist-info", metadata)
        with open(metadata / "METADATA", "a") as file:
            file.write(f"Version: {fitting}\n")
        (half / _PACKAGE / _LIBRARY).symlink_to(library)
        _seal(half)
        half.rename(site)


def main() -> int:
    """Print the folder for PYTHONPATH; return 2 where something is missing to build it."""
    try:
        print(site_folder())
    except CannotBuild as error:
        print(f"[Error] {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compile"]:
        _compile_here(Path(sys.argv[2]))
    else:
        sys.exit(main())
