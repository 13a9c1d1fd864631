"""lib/doctor and tools/doctor.py: the right verdict, and the line that mends what is wrong."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lib import doctor
from lib.doctor import OK, PROBLEM, WARNING, Cann, Probe, gather, judge, run_probe
from lib.doctor.verdicts import GIB, TORCH_NPU_FOR_CANN, base_version
from lib.environment import CannVariables, read_cann_variables

REPO = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPO / "requirements.txt"
ON_CPU = Probe(imported=True, kind="cpu", names=("cpu (x86_64, 2 threads)",), computed=True)
ON_NPU = Probe(imported=True, kind="npu", names=("npu:0 (Ascend910B3)",) * 8, computed=True)
NPU_VERSIONS = {"torch": "2.9.0+cpu", "torch_npu": "2.9.0", "torchvision": "0.24.0"}
NO_HCCL = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.fixture(scope="module")
def facts():
    """A machine where all is well, with some changes."""
    healthy = doctor.Facts(
        python=(3, 11, 7),
        machine="x86_64",
        versions={"torch": "2.14.1", "torchvision": "0.29.1+cpu", "yacs": "0.1.8"},
        requirements=(("torch", "2.6"), ("yacs", "0.1.8")),
        apex="absent",
        cann=None,
        drivers={},
        num_cards={"npu": 0, "cuda": 0},
        missing_nodes=(),
        num_cores=2,
        folder=Path("/work"),
        memory=16 * GIB,
        memory_free=8 * GIB,
        shared_memory_free=8 * GIB,
        disk_free=50 * GIB,
    )

    def build(*, versions=None, **changes):
        return replace(healthy, versions={**healthy.versions, **(versions or {})}, **changes)

    return build


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


def worst(findings):
    """The findings that are not ok, as {level: their lines with the fix}."""
    lines = {}
    for finding in findings:
        if finding.level != OK:
            lines.setdefault(finding.level, []).append(f"{finding.text}; {finding.fix}")
    return lines


def only(findings, level):
    """The one finding that is not ok, which must have that level."""
    lines = worst(findings)
    assert list(lines) == [level], lines
    (line,) = lines[level]
    return line


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def look(root, **variables):
    """The facts of the file system below `root`."""
    return gather(CannVariables(**variables), requirements=REQUIREMENTS, folder=root, root=root)


def test_a_plain_cpu_machine_can_train(run_separately, tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
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
    assert "export TORCH_DEVICE_BACKEND_AUTOLOAD=0 to train on the CPU" in line
    assert done.stdout.splitlines()[-1].startswith("verdict: training cannot start")


def test_an_installed_cann_that_was_not_set_up_is_the_fix(facts):
    probe = Probe(error="RuntimeError: no", log=f"torch_npu\nImportError: {NO_HCCL}\n")
    script = Path("/usr/local/Ascend/cann/set_env.sh")
    cann = Cann(Path("/"), "8.5.0", script)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), probe), PROBLEM)
    assert f"; source {script}; or export TORCH_DEVICE_BACKEND_AUTOLOAD=0" in line


def test_a_cann_that_the_environment_names_and_that_has_gone_is_named(facts):
    probe = Probe(error="RuntimeError: no", log="torch_npu\nException: ASCEND_HOME_PATH\n")
    cann = Cann(Path("/opt/gone"), "", sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), probe), PROBLEM)
    assert "/opt/gone, which the environment names as CANN, is not there" in line
    whole = Cann(Path("/"), "8.5.0", sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=whole), probe), PROBLEM)
    assert "install its toolkit and ops packages" in line


def test_torch_npu_beside_a_cuda_device_says_how_to_choose(facts):
    log = (
        "File torch_npu\nRuntimeError: Two accelerators cannot be used at the same time\n[ERROR]\n"
    )
    probe = Probe(error="RuntimeError: Failed to load", log=log)
    line = only(judge(facts(versions=NPU_VERSIONS), probe), PROBLEM)
    assert "beside a visible CUDA device; export TORCH_DEVICE_BACKEND_AUTOLOAD=0" in line


def test_torch_npu_that_is_switched_off_trains_on_the_cpu_with_a_warning(facts):
    line = only(judge(facts(versions=NPU_VERSIONS), ON_CPU), WARNING)
    assert line.startswith("torch_npu is installed, but torch sees no NPU; install CANN")


@pytest.mark.parametrize(("probe", "level"), [(ON_NPU, PROBLEM), (ON_CPU, WARNING)])
def test_a_torch_of_another_version_than_torch_npu_is_a_misfit(facts, probe, level):
    cann = Cann(Path("/"), "8.5.0", sourced=True)
    versions = {**NPU_VERSIONS, "torch": "2.8.0", "torchvision": "0.23.0"}
    lines = worst(judge(facts(versions=versions, cann=cann), probe))[level]
    assert "torch 2.8.0 and torch_npu 2.9.0 do not fit: it needs torch 2.9.0" in lines[0]
    assert "pip install torch==2.9.0" in lines[0]


@pytest.mark.parametrize(
    ("torch", "torch_npu"),
    [("2.6.0", "2.6.0.post3"), ("2.6.0+cpu", "2.6.0"), ("2.12.0+cu130", "2.12.0.post2")],
)
def test_post_releases_of_torch_npu_count_as_their_base(facts, torch, torch_npu):
    versions = {"torch": torch, "torch_npu": torch_npu}
    texts = [f.text for f in judge(facts(versions=versions), ON_NPU) if f.level == OK]
    assert f"torch {torch} and torch_npu {torch_npu} fit" in texts


@pytest.mark.parametrize(
    ("cann", "torch_npu"),
    [(cann, name) for cann, names in TORCH_NPU_FOR_CANN.items() for name in names],
)
def test_releases_that_belong_together_fit(facts, cann, torch_npu):
    minor = int(torch_npu.split(".")[1])
    versions = {
        "torch": base_version(torch_npu),
        "torch_npu": torch_npu,
        "torchvision": f"0.{minor + 15}.0",
    }
    described = facts(versions=versions, cann=Cann(Path("/"), cann, sourced=True))
    assert worst(judge(described, ON_NPU)) == {}


def test_the_table_holds_what_the_requirements_pin():
    """The pins of requirements_npu.txt and the sets in its comments."""
    text = (REPO / "requirements_npu.txt").read_text()
    assert "For Ascend NPUs with CANN 8.5.0," in text and "\ntorch_npu==2.9.0\n" in text
    pairs = {"8.5.0": "2.9.0"}
    for line in text.splitlines():
        if line.startswith("#   CANN "):
            words = line.split()
            pairs[words[2]] = words[4].partition("==")[2]
    assert len(pairs) == 4
    for cann, torch_npu in pairs.items():
        assert TORCH_NPU_FOR_CANN[cann][0] == torch_npu


def test_a_cann_of_another_release_is_a_warning_with_the_set_for_it(facts):
    cann = Cann(Path("/"), "9.1.0", sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), ON_NPU), WARNING)
    assert "CANN 9.1.0 is meant for torch_npu 2.12.0 or" in line
    assert line.endswith("pip install torch==2.12.0 torch_npu==2.12.0")


@pytest.mark.parametrize("release", ["", "12.0.0"])
def test_a_cann_that_the_table_lacks_is_said_to_be_unknown(facts, release):
    cann = Cann(Path("/"), release, sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), ON_NPU), WARNING)
    assert "is not known" in line and "CANN 9.1.0" in line


def test_apex_from_pypi_is_told_apart(facts, stand_in, tmp_path):
    package = stand_in("apex", "0.9.10.dev0", "")
    found = look(tmp_path)
    assert (found.apex, found.versions["apex"]) == ("unrelated", "0.9.10.dev0")
    versions = {"apex": "0.9.10.dev0"}
    line = only(judge(facts(apex="unrelated", versions=versions), ON_CPU), WARNING)
    assert "apex 0.9.10.dev0 is another package of that name" in line
    assert "pip uninstall apex" in line
    (package / "amp").mkdir()
    assert look(tmp_path).apex == "nvidia"
    assert "Ascend's" in only(judge(facts(apex="nvidia", versions=versions), ON_NPU), WARNING)


def test_ascends_apex_is_known_by_its_version(facts, stand_in, tmp_path):
    (stand_in("apex", "0.1+ascend", "") / "amp").mkdir()
    assert look(tmp_path).apex == "ascend"
    assert worst(judge(facts(apex="ascend"), ON_CPU)) == {}


def test_little_shared_memory_is_a_warning_with_the_size_that_would_do(facts):
    line = only(judge(facts(shared_memory_free=64 * 2**20), ON_CPU), WARNING)
    assert "/dev/shm has 0.06 GiB free; 2 data-loading processes" in line
    assert "docker run --shm-size=1g" in line
    line = only(judge(facts(shared_memory_free=8 * GIB, num_cores=192), ON_CPU), WARNING)
    assert "--shm-size=14g" in line


@pytest.mark.parametrize(("free_gib", "level"), [(0.2, PROBLEM), (1.5, WARNING)])
def test_little_disk_is_said_before_the_first_checkpoint(facts, free_gib, level):
    line = only(judge(facts(disk_free=int(free_gib * GIB)), ON_CPU), level)
    assert f"only {free_gib} GiB free in /work" in line and "--out" in line


def test_a_torchvision_of_another_torch_is_a_warning(facts):
    line = only(judge(facts(versions={"torchvision": "0.24.0"}), ON_CPU), WARNING)
    assert "torch 2.14.1 and torchvision 0.24.0 do not fit (only tests import it)" in line
    assert line.endswith("pip install 'torchvision==0.29.*' torch==2.14.1")


def test_an_old_python_is_a_problem(facts):
    line = only(judge(facts(python=(3, 8, 18)), ON_CPU), PROBLEM)
    assert "Python 3.8.18: 3.10 or newer is needed" in line and "-m venv" in line


@pytest.mark.parametrize(
    "path",
    [
        "tools/doctor.py",
        "tools/_init_paths.py",
        "lib/__init__.py",
        "lib/cli.py",
        "lib/environment.py",
        "lib/files.py",
        *(f"lib/doctor/{name}.py" for name in ("__init__", "facts", "probe", "report", "verdicts")),
    ],
)
def test_an_old_python_can_read_the_doctor(path):
    source = (REPO / path).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    runs_late = "from __future__ import annotations" in source
    assert runs_late or not any(isinstance(n, ast.AnnAssign | ast.arg) for n in ast.walk(tree))


def test_packages_that_are_missing_or_too_old_are_listed(facts):
    requirements = (("torch", "2.6"), ("yacs", "0.1.10"), ("tqdm", "4.64"), ("pyyaml", "6.0"))
    lines = worst(judge(facts(requirements=requirements), ON_CPU))[PROBLEM]
    assert lines == [
        "not installed: tqdm, pyyaml; pip install -r requirements.txt",
        "too old: yacs 0.1.8 (needed: 0.1.10); pip install -r requirements.txt",
    ]
    described = facts(requirements=requirements, num_cards={"npu": 8, "cuda": 0})
    assert all("requirements_npu.txt" in line for line in worst(judge(described, ON_NPU))[PROBLEM])


def test_without_torch_there_is_one_problem(facts):
    described = facts(versions={"torch": ""})
    described = replace(described, versions={"yacs": "0.1.8"})
    probe = Probe(error="ModuleNotFoundError: No module named 'torch'")
    assert only(judge(described, probe), PROBLEM).startswith("not installed: torch; pip install")


def test_cards_that_torch_does_not_see_are_a_warning(facts):
    cards = {"npu": 8, "cuda": 0}
    assert "no torch_npu; pip install" in only(judge(facts(num_cards=cards), ON_CPU), WARNING)
    cards = {"npu": 0, "cuda": 2}
    assert "nvidia-smi" in only(judge(facts(num_cards=cards), ON_CPU), WARNING)


def test_a_container_without_the_device_nodes_is_told_the_options(facts):
    cann = Cann(Path("/"), "8.5.0", sourced=True)
    described = facts(versions=NPU_VERSIONS, cann=cann, missing_nodes=("devmm_svm",))
    line = only(judge(described, ON_CPU), WARNING)
    assert "/dev/davinci0, /dev/devmm_svm not there" in line
    assert "--device=/dev/davinci_manager --device=/dev/devmm_svm --device=/dev/hisi_hdc" in line
    described = replace(described, num_cards={"npu": 1, "cuda": 0}, missing_nodes=())
    assert "ASCEND_RT_VISIBLE_DEVICES" in only(judge(described, ON_CPU), WARNING)


def test_a_device_that_cannot_compute_is_a_problem(facts):
    probe = replace(ON_NPU, computed=False, error="RuntimeError: no kernel")
    line = only(judge(facts(), probe), PROBLEM)
    assert line.startswith("torch cannot compute on npu: RuntimeError: no kernel; npu-smi info")


def test_a_device_that_is_not_there_is_refused_with_its_own_advice(facts):
    words = "ValueError: --device cuda: there is none on this machine; try --device cpu"
    line = only(judge(facts(), Probe(imported=True, error=words)), PROBLEM)
    assert line == words.partition(": ")[2]


def test_an_environment_that_training_refuses_is_a_problem(facts):
    """Pitfall 24."""
    error = "RANK set but WORLD_SIZE missing in the environment: start several with torchrun"
    line = only(judge(facts(environment_error=error), ON_CPU), PROBLEM)
    assert line == error.replace(": ", "; ")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("raise OSError('libgomp.so.1\\n[ERROR] (PID:1)')", "OSError: libgomp.so.1"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
    ids=["crash", "error", "exit"],
)
def test_a_torch_that_breaks_does_not_break_the_doctor(code, error, stand_in, facts):
    stand_in("torch", "2.14.1", code)
    probe = run_probe()
    assert not probe.imported and probe.error == error
    assert f"import torch fails: {error}" in only(judge(facts(), probe), PROBLEM)


def test_a_torch_that_hangs_is_given_up(stand_in, facts):
    stand_in("torch", "2.14.1", "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    probe = run_probe(timeout_s=0.5)
    assert "import torch fails: no end in 0.5 s" in only(judge(facts(), probe), PROBLEM)


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
    both = {"ASCEND_HOME_PATH": "/a", "ASCEND_TOOLKIT_HOME": "/b", "ASCEND_ROOT": "/c"}
    variables = read_cann_variables({**both, "CANN_INFO_FILE": "/d"})
    assert variables == CannVariables(home="/b", info_file="/d", root="/c")


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


def test_the_report_names_every_card_and_the_state_of_cann(facts):
    cann = Cann(Path("/"), "8.5.0", sourced=True)
    described = facts(versions=NPU_VERSIONS, cann=cann, drivers={"npu": "25.5.0"})
    text = doctor.as_text(described, ON_NPU, judge(described, ON_NPU))
    assert "8 x npu: npu:0 (Ascend910B3), " in text
    assert "CANN:          8.5.0 in /, set up\n" in text
    assert "driver:        npu 25.5.0\n" in text
    assert text.endswith("\nverdict: training can start on npu: 0 warnings")
