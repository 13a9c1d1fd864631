"""Exit codes and error lines of every entry script, and the options of train.py and valid.py."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import _common
import pytest
import torch
import train
import valid

from lib.runtime.cli import ArgumentParser, PartlyFailed, Stopped, fail, run_script, say
from lib.runtime.console import Console
from lib.runtime.environment import read_environment
from lib.runtime.launch import Cluster

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(p for p in (REPO / "tools").glob("*.py") if not p.name.startswith("_"))
AUTOLOAD_FAILED = (
    "Failed to load the backend extension: torch_npu. You can disable extension auto-loading with "
    "TORCH_DEVICE_BACKEND_AUTOLOAD=0."
)


def _ended(main, capsys):
    """Exit code and stderr of `run_script(main)`."""
    with pytest.raises(SystemExit) as leaving:
        run_script(main)
    return leaving.value.code, capsys.readouterr().err


def _raising(error):
    def main():
        raise error

    return main


def _not_autoloaded(cause):
    """What `import torch` raises where its backend extension raises `cause`."""
    error = RuntimeError(AUTOLOAD_FAILED)
    error.__cause__ = cause
    return error


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """Run a script's main with some arguments up to where devices are chosen; return the call."""
    monkeypatch.chdir(tmp_path)
    for name in ("ALLOW_FP32", "ALLOW_HF32", "ASCEND_DEVICE_ID", "RANK", "PROFILE_TYPE"):
        monkeypatch.delenv(name, raising=False)

    def run(script, *arguments):
        calls = []
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        monkeypatch.setattr(_common, "run_on_cards", lambda *a, **k: calls.append((a, k)))
        assert script.main() == 0
        (call,) = calls
        return call

    return run


def _train_call(call):
    """The options, configuration, request and machines that train.py arrived at."""
    (args, _, cluster), keywords = call
    config, request = keywords["work"].args
    return args, config, request, cluster


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ValueError("TRAIN.LR: 'x'\n is a str"), 2),
        (FileNotFoundError("no such data folder: /x"), 2),
        (NotADirectoryError("/x is a file"), 2),
        (PermissionError("/x cannot be written"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1),
        (PartlyFailed("2 of 3 images"), 1),
        (MemoryError(), 1),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_code(error, exit_code, capsys):
    code, stderr = _ended(_raising(error), capsys)
    assert code == exit_code
    assert stderr.startswith("[Error] ")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (Stopped(signal.SIGTERM, "the state is saved"), 143, "SIGTERM; the state is saved"),
        (Stopped(signal.SIGINT), 130, "SIGINT"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
    ],
)
def test_a_stop_that_was_asked_for_is_one_line_and_no_error(error, exit_code, said, capsys):
    """Fault L3."""
    assert _ended(_raising(error), capsys) == (exit_code, f"stopped by {said}\n")


def test_what_a_library_makes_of_ctrl_c_is_a_stop_too(capsys):
    """Fault M1: an import that Ctrl-C broke off raises nearly anything."""

    def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    before = signal.getsignal(signal.SIGINT)
    assert _ended(main, capsys) == (130, "stopped by Ctrl-C\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_ctrl_c_during_the_imports_is_one_line(tmp_path):
    """Fault M1."""
    (tmp_path / "yacs").mkdir()
    (tmp_path / "yacs" / "__init__.py").write_text("import os; os.kill(os.getpid(), 2)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, REPO / "tools" / "train.py", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "smaller --bs"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "smaller --bs"),
        (RuntimeError("[enforce fail at a.cpp:1] DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 9 bytes."), "smaller --bs"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "smaller --bs"),
        (RuntimeError("NPU out of memory. Tried to allocate 20.00 MiB"), "smaller --bs"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "smaller --bs"),
        (RuntimeError("unable to write to file </torch_9_1_0>: No space left on device (28)"),
         "--workers 0"),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback "
                      "(most recent call last):\n  x\nRuntimeError: unable to allocate shared "
                      "memory(shm) for file </torch_1_2>: Success (0)\n"), "--shm-size"),
        (RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many "
                      "open files (24)"), "ulimit -n"),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:561] Connection closed by peer"),
         "another process"),
        (RuntimeError("InvalidCxxCompiler: No working C++ compiler found in cxx: (None, 'g++')"),
         "TRAIN.COMPILE"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_one_line_with_what_helps(error, advice, capsys):
    """Fault M1: the failure's own words stand behind."""
    code, stderr = _ended(_raising(error), capsys)
    assert code == 1 and stderr.count("\n") == 1
    assert stderr.startswith("[Error] ") and advice in stderr and "Traceback" not in stderr
    assert type(error).__name__ in stderr


def test_a_file_name_that_is_no_text_can_be_printed(tmp_path):
    code = "from lib.runtime.cli import run_script; run_script(lambda: print('a\\udcfeb'))"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout == b"a\\xfeb\n", done.stderr


def test_no_error_line_can_be_forged_and_no_terminal_be_told_what_to_do(capsys):
    """Fault R2."""
    name = "a\x1b[2J\n[Error] all is lost\u202e.jpg"
    code, stderr = _ended(_raising(ValueError(f"{name} is no picture")), capsys)
    assert (code, stderr) == (2, "[Error] a\\x1b[2J [Error] all is lost\\u202e.jpg is no picture\n")

    def main():
        print("a name", name)
        print("a name", name, file=sys.stderr)
        return 0

    with pytest.raises(SystemExit):
        run_script(main)
    for text in capsys.readouterr():
        assert text == "a name a\\x1b[2J\n[Error] all is lost\\u202e.jpg\n"


def test_a_line_stays_one_whatever_the_names_in_it_hold(capsys):
    """Fault R2."""
    line = "a\x1b[31m\r\n[Error] forged\x85\u2028.jpg"
    say(line, "next")
    say(line, file=sys.stderr)
    Console(enabled=True).say(line)
    shown = "a\\x1b[31m\\x0d\\x0a[Error] forged\\x85\\u2028.jpg\n"
    assert capsys.readouterr() == (f"{shown}next\n{shown}", shown)


@pytest.mark.parametrize(
    ("prints", "exit_code"),
    [
        (lambda: print("a result"), 1),  # told when it is flushed, at the end
        (lambda: print("a result", flush=True), 1),
        (lambda: Console(enabled=True).say("a line"), 1),
        (lambda: ArgumentParser("A program.").parse_args(["--help"]), 1),
        (lambda: fail("no such file", 2), 2),
        (lambda: None, 0),
    ],
)
def test_a_result_that_could_not_be_printed_is_told(prints, exit_code, monkeypatch, capsys):
    """Fault L2."""
    with open("/dev/full", "w") as full:
        kept = os.dup(full.fileno())
        monkeypatch.setattr(sys, "stdout", full)
        code, stderr = _ended(lambda: prints() or 0, capsys)
        full.flush()  # as the interpreter does at its end
        os.dup2(kept, full.fileno())
        os.close(kept)
    assert code == exit_code
    said = "[Error] standard output: No space left on device\n"
    assert stderr == {0: "", 1: said, 2: "[Error] no such file\n"}[exit_code]


def test_a_closed_output_is_told_at_the_end(monkeypatch, capsys):
    """Fault L2."""
    monkeypatch.setattr(sys, "stdout", None)
    code, stderr = _ended(lambda: print("a result") or 0, capsys)
    assert (code, stderr) == (1, "[Error] standard output: it is closed\n")


@pytest.mark.parametrize("exit_code", [0, 1, 2])
def test_the_exit_code_of_main_is_the_scripts(exit_code, capsys):
    assert _ended(lambda: exit_code, capsys) == (exit_code, "")


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), ImportError("no torch")])
def test_a_bug_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error), match=str(error.args[0])):
        run_script(_raising(error))


def test_fail_folds_its_message_into_one_line(capsys):
    with pytest.raises(SystemExit) as leaving:
        fail("a\n  b\tc", 7)
    assert leaving.value.code == 7
    assert capsys.readouterr().err == "[Error] a b c\n"


def test_a_stop_names_its_signal():
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"


def test_torch_npu_without_cann_is_explained(capsys):
    """Pitfall 11: an installation that cannot even import torch says how to mend it."""
    cause = ImportError("libhccl.so: cannot open shared object file: No such file or directory")
    code, stderr = _ended(_raising(_not_autoloaded(cause)), capsys)
    assert code == 2
    assert "(ImportError: libhccl.so: cannot open shared object file: No such file" in stderr
    assert "set_env.sh" in stderr and "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in stderr
    assert stderr.endswith("python tools/doctor.py says what does not fit\n")


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (
            RuntimeError(
                "Two accelerators cannot be used at the same time in PyTorch: npu, cuda.\nX"
            ),
            "npu, cuda.); hide the CUDA devices (CUDA_VISIBLE_DEVICES=), or set TORCH_DEVICE_BACK",
        ),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "(ModuleNotFoundError: No m"),
        (
            ImportError("/x/torch_npu/_C.so: undefined symbol: _ZN3c10"),
            "undefined symbol: _ZN3c10)",
        ),
        (OSError("libtorch_cuda.so: cannot open shared object file"), "(OSError: libtorch_cuda.so"),
        (AttributeError("module 'torch' has no attribute 'x'"), "(AttributeError: module 'torch'"),
        (Exception(), "cannot be imported (Exception); "),
    ],
)
def test_a_torch_npu_that_fails_for_another_reason_is_not_said_to_want_cann(cause, said, capsys):
    code, stderr = _ended(_raising(_not_autoloaded(cause)), capsys)
    assert code == 2 and stderr.count("\n") == 1
    assert said in stderr and "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in stderr
    assert "set_env.sh" not in stderr
    assert stderr.endswith("python tools/doctor.py says what does not fit\n")


def test_a_cann_that_the_environment_names_and_that_is_gone_is_set_up_again(capsys):
    cause = Exception("ASCEND_HOME_PATH : /opt/gone does not exist. Please run 'source set_env.sh'")
    _, stderr = _ended(_raising(_not_autoloaded(cause)), capsys)
    assert "/opt/gone does not exist" in stderr and "cann/set_env.sh" in stderr


def test_torch_npu_without_cann_is_explained_by_the_training_script(tmp_path):
    """Pitfall 11: nothing before main's own guard imports torch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        f"cause = OSError('libascendcl.so: cannot open shared object file: No such file')\n"
        f"raise RuntimeError({AUTOLOAD_FAILED!r}) from cause"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, REPO / "tools" / "train.py", tmp_path]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    said = "[Error] torch_npu cannot be imported (OSError: libascendcl.so: cannot open shared"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("device", "variables", "is_said"),
    [
        ("auto", {"ASCEND_HOME_PATH": "/opt/cann"}, True),
        ("auto", {"ASCEND_TOOLKIT_HOME": "/opt/cann"}, True),
        ("cpu", {"ASCEND_HOME_PATH": "/opt/cann"}, False),
        ("auto", {}, False),
    ],
)
def test_a_run_on_the_cpu_that_nobody_asked_for_is_said_where_cann_is_set_up(
    device, variables, is_said, monkeypatch, capsys, tmp_path
):
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    devices = []
    _common.run_on_cards(
        SimpleNamespace(device=device, device_id=0),
        read_environment({}),
        Cluster(),
        log_dir=tmp_path,
        work=lambda processes: devices.append(processes.device.type),
    )
    assert devices == ["cpu"]
    said = capsys.readouterr().out.splitlines()
    assert [line[:45] for line in said] == [
        "[Warning] CANN is set up, but torch sees no N"
    ] * is_said
    assert all(line.endswith("python tools/doctor.py says why") for line in said)


def test_bad_input_is_one_line_that_points_at_help(capsys):
    parser = ArgumentParser("A program.")
    parser.add_argument("--count", type=int, default=3, help="how many")
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(["--count", "many"])
    assert leaving.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr == (
        "[Error] argument --count: invalid int value: 'many' (--help lists every option)\n"
    )


def test_help_shows_defaults_but_not_none():
    """Pitfall 1: --help shows every default."""
    parser = ArgumentParser("A program.")
    parser.add_argument("--count", type=int, default=3, help="how many, 100 %% at most")
    parser.add_argument("--lr", type=float, help="learning rate; the yaml's where left out")
    text = parser.format_help()
    assert "how many, 100 % at most (default: 3)" in text
    assert "None" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_explains_itself_from_any_working_directory(script, tmp_path):
    """Pitfall 10: scripts run from any working directory. Pitfall 1: --help works and says why."""
    command = [sys.executable, script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "default: None" not in done.stdout


@pytest.mark.parametrize("script", [train, valid], ids=["train.py", "valid.py"])
def test_leaving_out_every_option_works(script, command_line, tmp_path):
    """Pitfall 1."""
    (args, environment, cluster), keywords = command_line(script, tmp_path)
    assert (args.device, args.device_id, cluster.num_processes) == ("auto", 0, 1)
    assert environment.ranks.is_main
    recipe = Path("output/imagenet/cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100")
    assert keywords["log_dir"].is_relative_to(recipe)


@pytest.mark.parametrize("script", [train, valid], ids=["train.py", "valid.py"])
def test_help_of_the_main_scripts_shows_defaults(script, monkeypatch, capsys):
    """Pitfall 1: defaults stand in --help."""
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit) as leaving:
        script.main()
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in ("(default: auto)", "processes on this machine, one a card (default: 1)"):
        assert expected in text


@pytest.mark.parametrize(("text", "steps"), [("3", 3), ("1", 1), ("TRUE", 200), ("True", 200)])
def test_stop_step_is_a_number_of_steps(text, steps, command_line, tmp_path):
    """Pitfall 2: `--stop_step 3` means 3 steps; the old scripts' TRUE means 200."""
    _, _, request, _ = _train_call(command_line(train, tmp_path, "--stop_step", text))
    assert request.stop_step == steps
    assert request.folder.name == "performance"


@pytest.mark.parametrize("text", ["0", "-2"])
def test_a_performance_run_has_at_least_one_step(text, command_line, tmp_path):
    """Pitfall 2."""
    with pytest.raises(ValueError, match=f"--stop_step {text}: at least 1 step"):
        command_line(train, tmp_path, "--stop_step", text)


def test_stop_step_that_is_no_number_is_refused(command_line, tmp_path, capsys):
    """Pitfall 2."""
    with pytest.raises(SystemExit) as leaving:
        command_line(train, tmp_path, "--stop_step", "soon")
    assert leaving.value.code == 2
    assert "'soon' is not a number of steps" in capsys.readouterr().err


def test_pretrained_and_resume_go_where_they_say(command_line, tmp_path):
    """Pitfall 3: --pretrained X is the weights to start from, --resume X the run to continue."""
    call = command_line(train, tmp_path, "--pretrained", "a #1.pth", "--resume", "b: 2.pth.tar")
    _, config, request, _ = _train_call(call)
    assert config.MODEL.PRETRAINED == "a #1.pth"
    assert request.resume == Path("b: 2.pth.tar")


def test_a_fresh_run_continues_nothing_unless_asked(command_line, tmp_path):
    """Pitfall 4."""
    _, config, request, _ = _train_call(command_line(train, tmp_path))
    assert request.resume is None
    assert request.auto_resume is config.TRAIN.RESUME is False
    _, _, request, _ = _train_call(command_line(train, tmp_path, "--auto_resume"))
    assert request.auto_resume is True


def test_overrides_win_over_options_and_options_over_the_yaml(command_line, tmp_path):
    """--bs sets the batch of training and of evaluation; a KEY VALUE pair says one of them."""
    call = command_line(
        train, tmp_path, "TRAIN.WD", "0.2", "TEST.BATCH_SIZE_PER_GPU", "5", "--lr", "0.1",
        "--bs", "8",
        "--train_epochs", "2", "--seed", "5", "--workers", "0", "--precision", "bf16",
    )  # fmt: skip
    _, config, _, _ = _train_call(call)
    assert (config.TRAIN.LR, config.TRAIN.WD) == (0.1, 0.2)
    assert (config.TRAIN.BATCH_SIZE_PER_GPU, config.TEST.BATCH_SIZE_PER_GPU) == (8, 5)
    assert (config.TRAIN.END_EPOCH, config.SEED, config.WORKERS) == (2, 5, 0)
    assert config.TRAIN.PRECISION == "bf16"


def test_the_cluster_options_reach_the_launcher(command_line, tmp_path):
    """Pitfall 24: address, port and rank of the machine come from the command line."""
    call = command_line(
        train, tmp_path, "--cards", "4", "--nproc", "2", "--dn", "1", "--addr", "10.0.0.1",
        "--port", "1234", "--max_restarts", "1",
    )  # fmt: skip
    *_, cluster = _train_call(call)
    assert cluster.num_processes == 8
    assert (cluster.machine_rank, cluster.address, cluster.port) == (1, "10.0.0.1", 1234)
    assert cluster.max_restarts == 1


def test_the_warning_about_keys_without_meaning_is_printed(command_line, tmp_path, capsys):
    """Pitfall 6."""
    command_line(train, tmp_path, "GPUS", "0")
    assert capsys.readouterr().out == (
        f"[Warning] {_common.W18_RECIPE}: keys without meaning here are ignored: GPUS\n"
    )
