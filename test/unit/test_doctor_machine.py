"""tools/doctor.py as a whole, and what lib/doctor finds on a machine."""

import ast
import json
from pathlib import Path

import pytest

from lib.runtime.doctor.facts import Cann, gather
from lib.runtime.doctor.probe import run_probe
from lib.runtime.environment import CannVariables, read_cann_variables

REPO = Path(__file__).resolve().parents[2]
NO_HCCL = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a package with its metadata in front of the installed ones, here and in new processes."""
    folder = tmp_path / "packages"

    def install(name, version, code, *, entry_points=""):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return folder / name

    return install


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def look(root, **variables):
    """The facts of the file system below `root`."""
    return gather(
        CannVariables(**variables), requirements=REPO / "requirements.txt", folder=root, root=root
    )


def test_a_plain_cpu_machine_can_train(run_separately, tmp_path, monkeypatch):
    # A torch_npu beside the repository would make it another machine.
    for name in ("TORCH_DEVICE_BACKEND_AUTOLOAD", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    done = run_separately("tools/doctor.py", "--device", "cpu", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("verdict: training can start on cpu")
    starts = {line.index(line.split(": ", 1)[1].strip()) for line in lines[:14]}
    assert len(starts) == 1, "the values are aligned"
    assert {line.split(":")[0] for line in lines[14:-1]} <= {"ok", "warning"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["can_train"] is True
    assert report["facts"]["device"].startswith("cpu (")


def test_torch_npu_without_cann_is_named_where_torch_itself_cannot_be_imported(
    run_separately, stand_in, monkeypatch, tmp_path
):
    """Pitfall 11."""
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    monkeypatch.setenv("ASCEND_ROOT", str(tmp_path / "no Ascend"))
    monkeypatch.setenv("CANN_INFO_FILE", str(tmp_path / "no note"))
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(name, raising=False)
    stand_in(
        "torch_npu",
        "2.9.0",
        f"raise ImportError({NO_HCCL!r})",
        entry_points="[torch.backends]\ntorch_npu = torch_npu:_autoload\n",
    )
    done = run_separately("tools/doctor.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    (line,) = [line for line in done.stdout.splitlines() if "import torch fails" in line]
    assert line.startswith("problem: ") and f"ImportError: {NO_HCCL}" in line
    assert "install CANN and source its set_env.sh" in line
    assert "export TORCH_DEVICE_BACKEND_AUTOLOAD=0 to train without it" in line
    assert done.stdout.splitlines()[-1].startswith("verdict: training cannot start")


def test_the_packages_named_apex_are_told_apart(stand_in, tmp_path):
    package = stand_in("apex", "0.9.10.dev0", "")
    found = look(tmp_path)
    assert (found.apex, found.versions["apex"]) == ("unrelated", "0.9.10.dev0")
    (package / "amp").mkdir()
    assert look(tmp_path).apex == "nvidia"


def test_ascends_apex_is_known_by_its_version(stand_in, tmp_path):
    (stand_in("apex", "0.1+ascend", "") / "amp").mkdir()
    assert look(tmp_path).apex == "ascend"


_DOCTOR = ("__init__", "facts", "probe", "releases", "report", "verdicts")


@pytest.mark.parametrize(
    "path",
    [
        "tools/doctor.py",
        "tools/_init_paths.py",
        "lib/__init__.py",
        "lib/runtime/cli.py",
        "lib/runtime/environment.py",
        "lib/runtime/files.py",
        *(f"lib/runtime/doctor/{name}.py" for name in _DOCTOR),
    ],
)
def test_an_old_python_can_read_the_doctor(path):
    source = (REPO / path).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    runs_late = "from __future__ import annotations" in source
    assert runs_late or not any(isinstance(n, ast.AnnAssign | ast.arg) for n in ast.walk(tree))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("raise OSError('libgomp.so.1\\n[ERROR] (PID:1)')", "OSError: libgomp.so.1"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
    ids=["crash", "error", "exit"],
)
def test_a_torch_that_breaks_does_not_break_the_doctor(code, error, stand_in):
    stand_in("torch", "2.14.1", code)
    probe = run_probe()
    assert not probe.imported and probe.error == error


def test_a_torch_that_hangs_is_given_up(stand_in):
    stand_in("torch", "2.14.1", "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    probe = run_probe(timeout_s=0.5)
    assert (probe.imported, probe.error) == (False, "no end in 0.5 s")


def test_cann_is_found_by_the_installers_note_first(tmp_path):
    write(tmp_path / "etc/note", "Toolkit=1\nInstall_Path=/opt/Ascend\n")
    script = write(tmp_path / "opt/Ascend/ascend-toolkit/set_env.sh")
    home = tmp_path / "opt/Ascend/ascend-toolkit/latest"
    write(home / "x86_64-linux/ascend_toolkit_install.info", "package=a\nversion=8.3.RC1\narch=b\n")
    write(tmp_path / "usr/local/Ascend/cann/set_env.sh")
    found = look(tmp_path, info_file="/etc/note")
    assert found.cann == Cann(home, "8.3.RC1", script)
    assert look(tmp_path).cann.home == tmp_path / "usr/local/Ascend/cann"


@pytest.mark.parametrize(
    ("script", "info", "content"),
    [
        ("cann/set_env.sh", "cann/aarch64-linux/ascend_toolkit_install.info", "version=8.5.0"),
        ("nnae/set_env.sh", "nnae/latest/ascend_nnae_install.info", "version=8.5.0"),
        ("cann/set_env.sh", "cann/opp/version.info", "Version=7.0.1\nversion_dir=8.5.0"),
    ],
)
def test_the_release_of_cann_is_read_in_each_layout(script, info, content, tmp_path):
    root = tmp_path / "usr/local/Ascend"
    write(root / script)
    write(root / info, content)
    assert look(tmp_path).cann.version == "8.5.0"


def test_the_release_of_cann_is_read_from_its_folders_name_where_no_file_has_it(tmp_path):
    root = tmp_path / "usr/local/Ascend"
    write(root / "cann-9.1.0/set_env.sh")
    (root / "cann").symlink_to("cann-9.1.0")
    assert look(tmp_path).cann.version == "9.1.0"


def test_the_cann_of_the_environment_wins(tmp_path):
    write(tmp_path / "usr/local/Ascend/cann/set_env.sh")
    write(tmp_path / "opt/cann/set_env.sh")
    found = look(tmp_path, home="/opt/cann").cann
    assert (found.home, found.sourced, found.exists) == (tmp_path / "opt/cann", True, True)
    gone = look(tmp_path, home="/opt/gone").cann
    assert gone.sourced and not gone.exists
    assert gone.set_env == tmp_path / "usr/local/Ascend/cann/set_env.sh"


def test_without_cann_none_is_found(tmp_path):
    assert look(tmp_path).cann is None


def test_the_environment_says_where_cann_is():
    assert read_cann_variables({}) == CannVariables()
    assert read_cann_variables({"ASCEND_HOME_PATH": "/a"}).home == "/a"
    assert read_cann_variables({"ASCEND_TOOLKIT_HOME": "/b"}).home == "/b"
    both = {"ASCEND_HOME_PATH": "/a", "ASCEND_TOOLKIT_HOME": "/b", "ASCEND_ROOT": "/c"}
    variables = read_cann_variables({**both, "CANN_INFO_FILE": "/d"})
    assert variables == CannVariables(home="/a", info_file="/d", root="/c")


def test_cards_memory_and_drivers_are_read_from_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for node in ("davinci0", "davinci1", "davinci_manager", "hisi_hdc", "nvidia0", "nvidiactl"):
        write(tmp_path / "dev" / node)
    write(tmp_path / "proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", "819200\n")
    write(tmp_path / "usr/local/Ascend/driver/version.info", "Version=25.2.0\nother=1\n")
    found = look(tmp_path)
    assert (found.num_cards, found.missing_nodes) == ({"npu": 2, "cuda": 1}, ("devmm_svm",))
    assert (found.memory, found.memory_free) == (819200, 614400)
    assert found.drivers == {"npu": "25.2.0"}
    assert found.shared_memory_free is None
    for name, text in (("npu-smi", "| npu-smi 24.1   Version: 24.1.RC3 |"), ("nvidia-smi", "570")):
        write(tmp_path / "bin" / name, f"#!/bin/sh\necho '{text}'\n").chmod(0o755)
    assert look(tmp_path).drivers == {"npu": "24.1.RC3", "cuda": "570"}
    write(tmp_path / "bin/npu-smi", "#!/bin/sh\necho 'Version: x'; exit 1\n")
    assert look(tmp_path).drivers["npu"] == "25.2.0"
