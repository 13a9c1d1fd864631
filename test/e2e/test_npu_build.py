"""How the simulated npu comes to be: compiled once, outside the repository, or plainly not."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from conftest import REPO
from simnpu import build


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hrnet-simnpu"


@pytest.mark.parametrize("missing", ["c++", "ninja", "Python.h"])
def test_without_a_tool_an_npu_cannot_be_built_and_the_tool_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (tmp_path / "bin").mkdir()
    for program in {"c++", "ninja"} - {missing}:
        (tmp_path / "bin" / program).touch(mode=0o755)
    places = {"scripts": tmp_path / "bin", "include": tmp_path / "include"}
    (tmp_path / "include").mkdir()
    if missing != "Python.h":
        (tmp_path / "include/Python.h").touch()
    monkeypatch.setattr(build.sysconfig, "get_path", lambda name: str(places[name]))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.CannotBuild, match=rf"compiled with .*{missing[:2]}"):
        build.site_folder()


def test_what_does_not_compile_to_an_npu_shows_the_compilers_words(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_npu: Path
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'case $1 in -v | --version | -dump*) exec c++ "$@" ;; esac\n'
        "echo 'no such header' >&2\nexit 1\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(RuntimeError, match="(?s)does not compile.*no such header"):
        build.site_folder()


def test_a_built_npu_lies_outside_the_repository_and_is_found_again(simulated_npu: Path) -> None:
    assert not simulated_npu.is_relative_to(REPO)
    assert (simulated_npu / "torch_npu/_C.so").is_file()
    before = (simulated_npu / "torch_npu/_C.so").stat()
    assert build.site_folder() == simulated_npu
    assert (simulated_npu / "torch_npu/_C.so").stat() == before


def test_only_one_process_builds_an_npu_at_a_time(tmp_path: Path) -> None:
    with (
        build._locked(tmp_path / "lock"),
        open(tmp_path / "lock", "w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_npu_is_built_in_a_temporary_folder_where_the_users_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = build._cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
