"""Doctor: the right verdict, and the line that mends what is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from lib.runtime.cli import torch_npu_refusal
from lib.runtime.doctor.facts import Cann, Facts
from lib.runtime.doctor.probe import Probe
from lib.runtime.doctor.releases import TORCH_NPU_FOR_CANN, base_version
from lib.runtime.doctor.report import as_text
from lib.runtime.doctor.verdicts import GIB, OK, PROBLEM, WARNING, judge

REPO = Path(__file__).resolve().parents[2]
CPU_WHEELS = "--index-url https://download.pytorch.org/whl/cpu"
ON_X86 = f"pip install torch==2.9.0+cpu torchvision==0.24.0+cpu {CPU_WHEELS}"
ON_CPU = Probe(imported=True, kind="cpu", names=("cpu (x86_64, 2 threads)",), computed=True)
ON_NPU = Probe(imported=True, kind="npu", names=("npu:0 (Ascend910B3)",) * 8, computed=True)
NPU_VERSIONS = {"torch": "2.9.0+cpu", "torch_npu": "2.9.0", "torchvision": "0.24.0"}
NO_HCCL = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.fixture(scope="module")
def facts():
    """A machine where all is well, with some changes."""
    healthy = Facts(
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
    assert "beside a visible CUDA device; export CUDA_VISIBLE_DEVICES= to train on the NPU" in line
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0 to train on CUDA" in line


@pytest.mark.parametrize(
    ("cause", "fix"),
    [
        ("ModuleNotFoundError: No module named 'attr'", "install the package that has attr, see"),
        ("RuntimeError: another torch", f"{ON_X86} && pip install torch_npu==2.9.0; or export"),
        ("ImportError: _C.so: undefined symbol: _ZN3c10", f"{ON_X86} && pip install torch_npu"),
        ("OSError: libtorch_npu.so: cannot open shared object file", f"{ON_X86} && pip install"),
        ("some.package.SomeError", f"{ON_X86} && pip install torch_npu==2.9.0; or export"),
    ],
)
def test_a_torch_npu_that_fails_for_another_reason_than_cann_shows_it(facts, cause, fix):
    autoload = "RuntimeError: Failed to load the backend extension: torch_npu. You can disable"
    log = f"  File torch_npu\n{cause}\n\nThe above exception was the direct cause\n\n{autoload}\n"
    probe = Probe(error=autoload, log=log)
    line = only(judge(facts(versions=NPU_VERSIONS), probe), PROBLEM)
    assert line.startswith(f"import torch fails, since torch_npu cannot be loaded: {cause}; {fix}")


def test_a_torch_npu_that_fails_without_a_word_shows_torchs(facts):
    probe = Probe(error="ended by SIGSEGV", log="Fatal Python error in torch_npu\n")
    line = only(judge(facts(versions=NPU_VERSIONS), probe), PROBLEM)
    assert "torch_npu cannot be loaded: ended by SIGSEGV; " in line


def test_torch_npu_that_is_switched_off_trains_on_the_cpu_with_a_warning(facts):
    line = only(judge(facts(versions=NPU_VERSIONS), ON_CPU), WARNING)
    assert line.startswith("torch_npu is installed, but torch sees no NPU; install CANN")


@pytest.mark.parametrize(
    ("probe", "level"),
    [
        (ON_NPU, WARNING),
        (ON_CPU, WARNING),
        (replace(ON_NPU, computed=False, error="RuntimeError: no kernel"), PROBLEM),
    ],
    ids=["computes", "on the cpu", "does not compute"],
)
def test_a_torch_of_another_version_than_torch_npu_is_a_misfit(facts, probe, level):
    cann = Cann(Path("/"), "8.5.0", sourced=True)
    versions = {**NPU_VERSIONS, "torch": "2.8.0", "torchvision": "0.23.0"}
    lines = worst(judge(facts(versions=versions, cann=cann), probe))[level]
    assert "torch_npu 2.9.0 needs torch 2.9.0, and torch 2.8.0 is installed" in lines[0]
    assert lines[0].endswith(f"; {ON_X86}")
    on_arm = facts(versions=versions, cann=cann, machine="aarch64")
    assert worst(judge(on_arm, probe))[level][0].endswith(
        "; pip install torch==2.9.0 torchvision==0.24.0"
    )


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
    [(cann, name) for cann, names in TORCH_NPU_FOR_CANN.items() for name in names]
    + [("8.3.rc1", "2.8.0")],
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


def test_the_line_for_x86_64_is_the_same_wherever_it_stands():
    """doctor, the comments of requirements_npu.txt and the README; and it goes with the pins."""
    requirements = (REPO / "requirements_npu.txt").read_text()
    assert f"#   {ON_X86}\n" in requirements
    assert f"\n{ON_X86} " in (REPO / "README.md").read_text()
    assert {"torch==2.9.0", "torchvision==0.24.0"} <= set(requirements.splitlines())
    statement = (REPO / "public_address_statement.md").read_text()
    for name in ("requirements_npu.txt", "README.md", "lib/runtime/doctor/releases.py"):
        assert f"| {name} | https://download.pytorch.org/whl/cpu |" in statement


def test_a_cann_of_another_release_is_a_warning_with_the_set_for_it(facts):
    cann = Cann(Path("/"), "9.1.0", sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), ON_NPU), WARNING)
    assert "torch_npu 2.9.0 is not for CANN 9.1.0, which goes with 2.12.0, 2.11.0" in line
    torch = f"pip install torch==2.12.0+cpu torchvision==0.27.0+cpu {CPU_WHEELS}"
    assert line.endswith(f"; {torch} && pip install torch_npu==2.12.0")


@pytest.mark.parametrize("release", ["", "12.0.0"])
def test_a_cann_that_the_table_lacks_is_said_to_be_unknown(facts, release):
    cann = Cann(Path("/"), release, sourced=True)
    line = only(judge(facts(versions=NPU_VERSIONS, cann=cann), ON_NPU), WARNING)
    assert "is not known" in line and "CANN 9.1.0" in line


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
    assert (
        "torch 2.14.1 and torchvision 0.24.0 do not fit (AUG.AUTO, AUG.ERASE and tests import it)"
        in line
    )
    assert line.endswith("pip install 'torchvision==0.29.*' torch==2.14.1")


def test_an_old_python_is_a_problem(facts):
    line = only(judge(facts(python=(3, 8, 18)), ON_CPU), PROBLEM)
    assert "Python 3.8.18: 3.10 or newer is needed" in line and "-m venv" in line


def test_packages_that_are_missing_or_too_old_are_listed(facts):
    requirements = (("torch", "2.6"), ("yacs", "0.1.10"), ("tqdm", "4.64"), ("pyyaml", "6.0"))
    lines = worst(judge(facts(requirements=requirements), ON_CPU))[PROBLEM]
    assert lines == [
        "not installed: tqdm, pyyaml; pip install -r requirements.txt",
        "too old: yacs 0.1.8 (needed: 0.1.10); pip install -r requirements.txt",
    ]
    described = facts(requirements=requirements, num_cards={"npu": 8, "cuda": 0})
    lines = worst(judge(described, ON_NPU))[PROBLEM]
    assert [line.partition("; ")[2] for line in lines] == [
        f"{ON_X86} && pip install -r requirements_npu.txt"
    ] * 2
    for cann, command in (
        ("8.5.0", "pip install -r requirements_npu.txt"),
        (
            "8.3.RC1",
            "pip install torch==2.8.0 torchvision==0.23.0"
            " && pip install torch_npu==2.8.0 -r requirements.txt",
        ),
    ):
        installed = Cann(Path("/"), cann)
        described = facts(requirements=requirements, machine="aarch64", cann=installed)
        lines = worst(judge(described, ON_CPU))[PROBLEM]
        assert {line.partition("; ")[2] for line in lines} == {command}


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


@pytest.mark.parametrize(
    ("cause", "versions", "fix"),
    [
        (
            ModuleNotFoundError("No module named 'torch_npu'", name="torch_npu"),
            {},
            f"{ON_X86} && pip install -r requirements_npu.txt; or take --device cuda or cpu",
        ),
        (OSError(NO_HCCL), NPU_VERSIONS, "run `source /usr/local/Ascend/cann/set_env.sh` (before"),
        (RuntimeError("x"), NPU_VERSIONS, "set TORCH_DEVICE_BACKEND_AUTOLOAD=0 to do without"),
    ],
)
def test_the_way_to_an_npu_that_is_not_there_is_not_the_doctor_again(facts, cause, versions, fix):
    """Fault M5: the fix was to run the doctor."""
    words = f"ValueError: --device npu: {torch_npu_refusal(cause)}"
    findings = judge(facts(versions=versions), Probe(imported=True, error=words))
    (problem,) = [finding for finding in findings if finding.level == PROBLEM]
    assert problem.fix.startswith(fix) and "doctor" not in problem.fix


@pytest.mark.parametrize("torch_npu", ["2.1.0", "2.1.0.post17", "2.5.1", "of unknown version"])
@pytest.mark.parametrize("imported", [True, False])
def test_a_torch_npu_whose_torch_is_too_old_here_is_replaced(facts, torch_npu, imported):
    """Fault M5: a torch was advised that the next line called too old."""
    log = f"torch_npu\nRuntimeError: {torch_npu}"
    probe = ON_CPU if imported else Probe(error="RuntimeError: torch_npu", log=log)
    lines = worst(judge(facts(versions={"torch_npu": torch_npu, "torch": "2.9.0"}), probe))
    fixes = [line for level in lines.values() for line in level if "pip install" in line]
    assert any("2.6 or newer is needed here" in line for line in fixes)
    assert all("requirements_npu.txt" in line for line in fixes if "torchvision 0" not in line)
    assert "torch==2.1" not in str(fixes) and "torch==2.5" not in str(fixes)


def test_an_environment_that_training_refuses_is_a_problem(facts):
    """Pitfall 24."""
    error = "RANK set but WORLD_SIZE missing in the environment: start several with torchrun"
    line = only(judge(facts(environment_error=error), ON_CPU), PROBLEM)
    assert line == error.replace(": ", "; ")


def test_the_report_names_every_card_and_the_state_of_cann(facts):
    cann = Cann(Path("/"), "8.5.0", sourced=True)
    described = facts(versions=NPU_VERSIONS, cann=cann, drivers={"npu": "25.5.0"})
    text = as_text(described, ON_NPU, judge(described, ON_NPU))
    assert "8 x npu: npu:0 (Ascend910B3), " in text
    assert "CANN:          8.5.0 in /, set up\n" in text
    assert "driver:        npu 25.5.0\n" in text
    assert text.endswith("\nverdict: training can start on npu: 0 warnings")


@pytest.mark.parametrize(
    ("apex", "line"),
    [
        ("unrelated", "apex 0.9.10.dev0 is another package of that name"),
        ("nvidia", "apex 0.9.10.dev0 does not seem to be Ascend's"),
    ],
)
def test_an_apex_that_is_not_ascends_is_a_warning(facts, apex, line):
    described = facts(apex=apex, versions={"apex": "0.9.10.dev0"})
    assert line in only(judge(described, ON_NPU), WARNING)
    assert worst(judge(facts(apex="ascend"), ON_NPU)) == {}


def test_a_torch_that_cannot_be_imported_is_a_problem(facts):
    line = only(judge(facts(), Probe(error="ended by SIGSEGV")), PROBLEM)
    assert line.startswith("import torch fails: ended by SIGSEGV; python -c 'import torch'")
