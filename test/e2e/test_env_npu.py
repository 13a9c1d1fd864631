"""test/env_npu.sh with made-up CANN installations."""

import subprocess
from pathlib import Path

import pytest
from launcher_sandbox import Repository

LAYOUTS = ["cann", "ascend-toolkit", "ascend-toolkit/latest", "nnae"]


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A fresh copy of the scripts."""
    return Repository(tmp_path)


@pytest.fixture
def ascend(tmp_path: Path) -> Path:
    """An empty folder to build fake CANN installations in."""
    folder = tmp_path / "usr local" / "Ascend"
    folder.mkdir(parents=True)
    return folder


def install_cann(folder: Path, name: str) -> None:
    """Write a set_env.sh as careless as real ones: unset variables, a failing command."""
    folder.mkdir(parents=True)
    text = f"export LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH\nfalse\nexport CANN_FOUND='{name}'\n"
    (folder / "set_env.sh").write_text(text)


def source_npu(repo: Repository, **environment: str) -> subprocess.CompletedProcess[str]:
    """Source env_npu.sh under -eu, and show what it leaves."""
    code = 'set -eu; source test/env_npu.sh; echo "$-"; env'
    return repo.run_words(["bash", "-c", code], **environment)


@pytest.mark.parametrize("first", range(len(LAYOUTS)))
def test_cann_is_found_in_each_layout_the_newest_first(
    repo: Repository, ascend: Path, first: int
) -> None:
    for layout in LAYOUTS[first:]:
        install_cann(ascend / layout, layout)
    result = source_npu(repo, ASCEND_ROOT=str(ascend))
    assert result.returncode == 0, result.stderr
    assert f"CANN from {ascend / LAYOUTS[first]}/set_env.sh\n" in result.stdout
    assert f"CANN_FOUND={LAYOUTS[first]}\n" in result.stdout
    flags = result.stdout.splitlines()[1]
    assert {"e", "u"} <= set(flags)


def test_the_installers_note_comes_before_the_usual_place(
    repo: Repository, ascend: Path, tmp_path: Path
) -> None:
    install_cann(tmp_path / "opt/my cann/nnae", "noted")
    install_cann(ascend / "cann", "usual")
    note = tmp_path / "ascend_cann_install.info"
    note.write_text(f"Install_Type=run\nInstall_Path={tmp_path}/opt/my cann \r\nUserName=root\n")
    result = source_npu(repo, ASCEND_ROOT=str(ascend), CANN_INFO_FILE=str(note))
    assert "CANN_FOUND=noted\n" in result.stdout
    note.write_text(f"Install_Path={tmp_path}/removed\n")
    result = source_npu(repo, ASCEND_ROOT=str(ascend), CANN_INFO_FILE=str(note))
    assert "CANN_FOUND=usual\n" in result.stdout


@pytest.mark.parametrize("variable", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"])
def test_a_cann_that_is_set_up_is_left_alone(
    repo: Repository, ascend: Path, tmp_path: Path, variable: str
) -> None:
    """As tools/doctor.py sees it; it only sets the npu's variables."""
    install_cann(ascend / "cann", "usual")
    mine = tmp_path / "my cann"
    mine.mkdir()
    result = source_npu(repo, ASCEND_ROOT=str(ascend), **{variable: str(mine)})
    assert result.returncode == 0, result.stderr
    assert f"env_npu.sh: CANN from the environment as it is, {mine}\n" in result.stdout
    assert "CANN_FOUND" not in result.stdout
    assert "TASK_QUEUE_ENABLE=1\n" in result.stdout


def test_a_cann_that_was_set_up_and_is_gone_gives_way_to_one_that_is_there(
    repo: Repository, ascend: Path, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    result = source_npu(repo, ASCEND_ROOT=str(ascend), ASCEND_HOME_PATH=gone)
    assert "going on with CUDA or CPU\n" in result.stdout
    install_cann(ascend / "cann", "usual")
    result = source_npu(repo, ASCEND_ROOT=str(ascend), ASCEND_HOME_PATH=gone)
    assert "CANN_FOUND=usual\n" in result.stdout


def test_with_cann_the_npu_variables_are_set_but_not_those_the_user_set(
    repo: Repository, ascend: Path
) -> None:
    install_cann(ascend / "cann", "usual")
    result = source_npu(repo, ASCEND_ROOT=str(ascend), TASK_QUEUE_ENABLE="2")
    lines = result.stdout.splitlines()
    assert "TASK_QUEUE_ENABLE=2" in lines
    for setting in (
        "CPU_AFFINITY_CONF=1",
        "PYTORCH_NPU_ALLOC_CONF=expandable_segments:True",
        "COMBINED_ENABLE=1",
        "HCCL_CONNECT_TIMEOUT=1800",
        "HCCL_WHITELIST_DISABLE=1",
    ):
        assert setting in lines
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD" not in result.stdout
    assert "ASCEND_RT_VISIBLE_DEVICES" not in result.stdout


def test_a_cann_script_that_fails_is_a_warning(repo: Repository, ascend: Path) -> None:
    install_cann(ascend / "cann", "usual")
    (ascend / "cann/set_env.sh").write_text("return 3\n")
    result = source_npu(repo, ASCEND_ROOT=str(ascend))
    assert result.returncode == 0
    assert "[Warning]" in result.stderr
    assert "ended with code 3" in result.stderr


def test_without_cann_one_line_says_so_and_the_run_goes_on(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh")
    assert result.returncode == 0
    lines = [line for line in result.stdout.splitlines() if "CANN" in line]
    assert len(lines) == 1
    assert "going on with CUDA or CPU" in lines[0]
    environment = repo.record["environment"]
    assert isinstance(environment, dict)
    assert "TASK_QUEUE_ENABLE" not in environment


def test_a_prepared_environment_is_left_alone(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh", etp_running_flag="true")
    assert result.returncode == 0
    assert "CANN" not in result.stdout
    environment = repo.record["environment"]
    assert isinstance(environment, dict)
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD" not in environment
