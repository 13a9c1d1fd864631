"""How the simulated npu comes to be: compiled once, outside the repository, or plainly not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO
from simnpu import build


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hrnet-simnpu"


@pytest.fixture
def fake_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The libraries that were compiled; each is some bytes."""
    compiled = []

    def compile_(library: Path) -> None:
        compiled.append(library)
        library.parent.mkdir()
        library.write_bytes(b"a library")

    monkeypatch.setattr(build, "_compile", compile_)
    return compiled


@pytest.mark.parametrize("missing", ["c++", "ninja", "Python.h"])
@pytest.mark.parametrize("variable", [None, "", " "])
def test_without_a_tool_an_npu_cannot_be_built_and_the_tool_is_named(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
    variable: str | None,
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
    if variable is not None:
        monkeypatch.setenv("CXX", variable)
    with pytest.raises(build.CannotBuild, match=rf"compiled with .*{missing[:2]}"):
        build.site_folder()
    assert build.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("[Error] the simulated npu is compiled with ") and said.count("\n") == 1


@pytest.mark.parametrize("damaged", ["lib-*/_C.so", "site-*/torch_npu/npu/amp.py", "lib-*/*.json"])
def test_what_was_built_of_an_npu_and_is_damaged_is_built_again(
    cache: Path, fake_compiler: list[Path], damaged: str
) -> None:
    site = build.site_folder()
    assert build.site_folder() == site and len(fake_compiler) == 1
    (file,) = cache.glob(damaged)
    whole = file.read_bytes()
    file.write_bytes(whole[:5])
    assert build.site_folder() == site
    assert file.read_bytes() == whole
    assert len(fake_compiler) == (1 if damaged.startswith("site") else 2)
    (site / "torch_npu/hccl.py").unlink()
    assert build.site_folder() == site
    assert (site / "torch_npu/hccl.py").is_file()


def test_builds_of_an_npu_for_older_sources_are_removed_but_not_those_in_use(
    cache: Path, fake_compiler: list[Path]
) -> None:
    site = build.site_folder()
    folders = {}
    for kind in ("lib", "site"):
        for name, torch in (
            ("old", build._tag()),
            ("in use", build._tag()),
            ("other torch", "1.0"),
        ):
            folders[kind, name] = cache / f"{kind}-{torch}-{name}"
            folders[kind, name].mkdir()
            if name != "in use":
                os.utime(folders[kind, name], (0, 0))
    for folder in (site, fake_compiler[0].parent):
        os.utime(folder, (0, 0))
    assert build.site_folder() == site and len(fake_compiler) == 1
    assert site.is_dir()
    assert {name for name, folder in folders.items() if not folder.exists()} == {
        ("lib", "old"), ("site", "old"),
    }  # fmt: skip


def test_a_build_of_an_npu_is_for_one_torch_one_python_and_one_kind_of_machine(
    cache: Path, fake_compiler: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [build.site_folder()]
    monkeypatch.setattr(build.platform, "machine", lambda: "another")
    sites.append(build.site_folder())
    monkeypatch.setattr(build, "version", lambda name: "1.2.3+cpu")
    sites.append(build.site_folder())
    assert len(set(sites)) == len(fake_compiler) == 3
    text = (sites[-1] / "torch_npu-1.2.3+simulated.dist-info/METADATA").read_text()
    assert text.endswith("\nVersion: 1.2.3+simulated\n")


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


@pytest.mark.parametrize(
    ("options", "code", "said"), [((), 0, "1 skipped"), (("--require-simnpu",), 1, "1 error")]
)
def test_an_npu_that_cannot_be_built_skips_its_tests_or_fails_them_as_asked(
    tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    """Continuous integration asks for a failure: without an npu its verdict says less."""
    reason = "the simulated npu is compiled with no-such-compiler, which is not there"
    name = "test_a_built_npu_lies_outside_the_repository_and_is_found_again"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"{Path(__file__)}::{name}"],
        cwd=REPO,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CXX": "no-such-compiler -O2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert said in done.stdout.splitlines()[-1] and reason in done.stdout
