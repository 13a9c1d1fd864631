"""Choosing and filling a Python, and the scripts that begin with it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launcher_sandbox import Repository, only_error_line


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A fresh copy of the scripts."""
    return Repository(tmp_path)


FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *'import torch'*) [ -e "$0.has_torch" ] || { echo 'ModuleNotFoundError: torch' >&2; exit 1; } ;;
  '-m venv '*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  '-m pip install'*) echo "$*" >"$0.installed"; touch "$0.has_torch" ;;
  '-m pip'*) case "$0" in */bin/python) ;; *) exit 1 ;; esac ;;
esac
"""


@pytest.fixture
def pythons(repo: Repository, tmp_path: Path) -> Path:
    """A folder in PATH whose python3 has no torch; nothing real can be installed."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "python3").write_text(FAKE_PYTHON)
    (folder / "python3").chmod(0o755)
    repo.environment["PATH"] = f"{folder}:{repo.environment['PATH']}"
    del repo.environment["PYTHON"]
    return folder


def choose(repo: Repository, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Source setup_python.sh, call one of its functions and print its choice last."""
    code = f'set -euo pipefail; source test/setup_python.sh; {call}; echo "$PYTHON"'
    return repo.run_words(["bash", "-c", code], **environment)


ENSURE = "ensure_python torch yaml -- -r 'a list.txt'"


def test_a_python_that_has_everything_is_used_as_it_is(repo: Repository, pythons: Path) -> None:
    (pythons / "python3.has_torch").touch()
    assert choose(repo, ENSURE).stdout == "python3\n"
    assert choose(repo, "find_python").stdout == "python3\n"
    assert not (pythons / "python3.installed").exists()


def test_without_torch_an_environment_is_made_in_the_repository_and_used_again(
    repo: Repository, pythons: Path
) -> None:
    assert choose(repo, "find_python").stdout == "python3\n"
    own = repo.root / ".venv/bin/python"
    assert choose(repo, ENSURE).stdout.splitlines()[-1] == str(own)
    installed = own.parent / "python.installed"
    assert installed.read_text().endswith("-r a list.txt\n")
    installed.unlink()
    assert choose(repo, ENSURE).stdout == f"{own}\n"
    assert choose(repo, "find_python").stdout == f"{own}\n"
    assert not installed.exists()
    assert not (pythons / "python3.installed").exists()


def test_an_active_environment_gets_what_is_missing(
    repo: Repository, pythons: Path, tmp_path: Path
) -> None:
    active = tmp_path / "my env"
    subprocess.run([pythons / "python3", "-m", "venv", active], check=True)
    result = choose(repo, ENSURE, VIRTUAL_ENV=str(active))
    assert result.stdout.splitlines()[-1] == str(active / "bin/python")
    assert (active / "bin/python.installed").exists()
    assert not (repo.root / ".venv").exists()


@pytest.mark.usefixtures("pythons")
def test_nothing_is_installed_into_a_python_that_the_user_named(repo: Repository) -> None:
    result = choose(repo, ENSURE, PYTHON="python3")
    assert result.returncode == 1
    assert "PYTHON=python3 lacks what is needed" in only_error_line(result)
    assert "pip install -r a list.txt" in result.stderr


def test_a_relative_python_is_the_callers(repo: Repository, pythons: Path) -> None:
    (repo.root / "test/bin").mkdir()
    shutil.copy(pythons / "python3", repo.root / "test/bin/python")
    code = 'source ./setup_python.sh; find_python; echo "$PYTHON"'
    result = repo.run_words(["bash", "-c", code], cwd=repo.root / "test", PYTHON="bin/python")
    assert result.stdout == f"{repo.root}/test/bin/python\n"


# ---- quickstart.sh, run_tests.sh, .ci/run ----

QUICK_PYTHON = """#!/bin/sh
echo "$*" >>"$RECORD"
case "$1 $2" in
  'tools/train.py '*) mkdir -p "$6/eval"; echo "{\\"best_accuracy_top1\\": $TRAINED}" >"$6/result.json" ;;
  'tools/valid.py '*) echo "{\\"accuracy_top1\\": $EVALUATED}" >"$6/result.json" ;;
  '- '*) exec %s "$@" ;;
esac
"""  # noqa: E501


@pytest.mark.parametrize(
    ("trained", "evaluated", "chain", "code", "said"),
    [
        ("98.75", "98.75", 0, 0, "tools/train.py 98.750 %, tools/valid.py 98.750 %"),
        ("98.75", "98.5", 0, 1, "the two accuracies differ"),
        ("90.0", "90.0", 0, 1, "below 95 %"),
        ("98.75", "98.75", 7, 7, "chain --data_path=data/digits --checkpoint=my run/model_best"),
    ],
)
def test_the_quick_start_trains_evaluates_checks_both_accuracies_and_runs_the_chain(
    repo: Repository, trained: str, evaluated: str, chain: int, code: int, said: str
) -> None:
    (repo.root / "test/offline_chain.sh").write_text(f'echo "chain $*"; exit {chain}\n')
    Path(repo.environment["PYTHON"]).write_text(QUICK_PYTHON % sys.executable)
    result = repo.run_words(
        ["bash", "quickstart.sh", "--device", "cpu", "--out", "my run", "--seed=3"],
        cwd=repo.root / "test",
        TRAINED=trained,
        EVALUATED=evaluated,
    )
    assert result.returncode == code, result.stderr
    assert said in result.stdout + result.stderr
    calls = [line for line in repo.record_text.splitlines() if line.startswith("tools/")]
    cfg = "experiments/quickstart_digits.yaml"
    assert calls == [
        "tools/make_digits.py data/digits",
        f"tools/train.py data/digits --cfg {cfg} --out my run --device cpu --out my run --seed=3",
        "tools/valid.py data/digits --testModel my run/model_best.pth.tar --out my run/eval"
        " --device=cpu",
    ]
    if code == 0:
        assert "chain --data_path=data/digits --checkpoint=my run/model_best" in result.stdout
        last = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[-5:])
        assert last["weights"] == "my run/model_best.pth.tar"
        assert last["curves"] == "my run/curves.png"


CHECKING_PYTHON = """#!/bin/sh
case "$*" in
  *sysconfig*) echo "$TOOLS" ;;
  "-m $FAILING"*) exit 1 ;;
  '-m pytest'*) echo "1 passed: $*" ;;
esac
"""
CHECKS = ["ruff check", "ruff format", "shellcheck", "mypy", "pytest"]


@pytest.mark.parametrize("failing", [*CHECKS, "nothing"])
def test_one_failing_check_fails_all_and_hides_none(
    repo: Repository, tmp_path: Path, failing: str
) -> None:
    Path(repo.environment["PYTHON"]).write_text(CHECKING_PYTHON)
    shellcheck = tmp_path / "tools/shellcheck"
    shellcheck.parent.mkdir()
    shellcheck.write_text('#!/bin/sh\n[ "$FAILING" != shellcheck ]\n')
    shellcheck.chmod(0o755)
    result = repo.run_words(
        ["bash", "test/run_tests.sh", "-k", "two words"],
        TOOLS=str(shellcheck.parent),
        FAILING=failing,
    )
    assert result.returncode == int(failing != "nothing"), result.stderr
    started = [line for line in result.stdout.splitlines() if line.startswith("== ")]
    assert [check in line for check, line in zip(CHECKS, started, strict=False)] == [True] * 4
    if failing in CHECKS[:-1]:
        assert failing in only_error_line(result)
    if failing != "pytest":
        last = result.stdout.splitlines()[-1]
        assert last.startswith("1 passed: -m pytest --numprocesses auto ")
        assert last.endswith(" -k two words")


@pytest.mark.parametrize("code", [0, 1])
def test_ci_runs_all_checks_in_an_environment_that_it_removes(
    repo: Repository, pythons: Path, tmp_path: Path, code: int
) -> None:
    """Fault M7: and it finds photographs beside the checkout, where they are."""
    (pythons / "python3").write_text(
        '#!/bin/sh\nmkdir -p "$3/bin"\necho "export VIRTUAL_ENV=\'$3\'" >"$3/bin/activate"\n'
    )
    (repo.root / "test/run_tests.sh").write_text(
        f'echo "${{PYTHON:-unset}} $*"; echo "$HRNET_TEST_DATA"; echo "$VIRTUAL_ENV"; exit {code}\n'
    )
    photos = repo.root.parent / "shared/data"
    if code == 0:
        photos.mkdir(parents=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = repo.run_words(
        ["bash", str(repo.root / ".ci/run"), "-x"], cwd=tmp_path, TMPDIR=str(scratch), PYTHON="mine"
    )
    assert result.returncode == code, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "unset -x --torch-npu-wheel --require-simnpu"
    assert lines[1] == (str(photos) if code == 0 else "")
    assert Path(lines[-1]).is_relative_to(scratch)
    assert list(scratch.iterdir()) == []
