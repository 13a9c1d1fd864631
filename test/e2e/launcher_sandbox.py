"""A copy of the repository's scripts to try the launchers in, with a stand-in for Python.

The stand-in records the command line it gets, prints and writes as tools/train.py and
tools/valid.py do, and lets tools/case_report.py through to the real one. MODE in its environment
makes it fail, or wait for a signal.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINING = [
    "train_full_1p.sh",
    "train_full_8p.sh",
    "train_performance_1p.sh",
    "train_performance_8p.sh",
]
LAUNCHERS = [*TRAINING, "train_eval_1p.sh"]
_PROGRAM = """#!%(python)s -SE
import json, os, pathlib, signal, sys, time

script, words = sys.argv[1], sys.argv[2:]
if script == "tools/case_report.py":
    os.execv("%(python)s", ["%(python)s", script, *words])
names = ["ASCEND_DEVICE_ID", "RANK_SIZE", "ALLOW_FP32", "ALLOW_HF32", "TASK_QUEUE_ENABLE",
         "TORCH_DEVICE_BACKEND_AUTOLOAD", "PYTHONUNBUFFERED"]
record = {"script": script, "words": words, "cwd": os.getcwd()}
record["environment"] = {name: os.environ[name] for name in names if name in os.environ}
pathlib.Path(os.environ["RECORD"]).write_text(json.dumps(record))

mode = os.environ.get("MODE", "")
if mode == "wait":
    def stop(number, frame):
        time.sleep(0.2)
        os.write(1, b"state saved\\n")  # print is not made for being interrupted by itself
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        sys.exit("deaf to SIGINT")
    signal.signal(signal.SIGINT, stop)
    print("ready", flush=True)
    time.sleep(20)
elif mode.startswith("fail"):
    print(*mode.split(":", 2)[2].split("|"), sep="\\n", file=sys.stderr)
    sys.exit(int(mode.split(":")[1]))
elif mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)

def say(*groups):
    print(*groups, sep="\\t")

given = dict(zip(words, words[1:]))
folder = pathlib.Path(given["--out"])
kind = "eval" if "valid" in script else "performance" if "--stop_step" in given else "train"
folder = folder / "performance" if kind == "performance" else folder
folder.mkdir(parents=True, exist_ok=True)
losses = (6.90776, 5.5)
if kind != "eval":
    print("step_time = 12.3456\\nstep_time = 0.4321")
    for step, loss in enumerate(losses):
        say(f"Epoch: [0][{step}/2]", "Time 0.431s", "FPS 594.0", "Data 0.001s", f"Loss {loss:.5f}",
            "Accuracy@1 0.391", "Accuracy@5 1.562")
    say("Data Average :", "Time_Avg 0.431s", "Fps_Avg 594.0", "Loss 6.20388",
        "Accuracy@1_Avg 0.391")
    lines = [{"kind": "interval", "epoch": 0, "step": i, "loss": x} for i, x in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
if kind != "performance":
    say("Test: Time 0.210", "Loss 1.2500", "Error@1 23.350", "Error@5 7.000", "Accuracy@1 76.650",
        "Accuracy@5 93.000")
result = {
    "kind": kind,
    "cards": int(given.get("--cards", 1)) * int(given.get("--nproc", 1)),
    "batch_size": int(given["--bs"]),
    "images_per_s": 594.0,
    "train_loss": losses[-1],
    "loss": 1.25,
    "accuracy_top1": 0.391 if kind == "performance" else 76.65,
    "compile_time_s": 12.7777,
}
if given.get("--dn", "0") == "0" and mode != "no result":
    (folder / "result.json").write_text(json.dumps(result))
"""


class Repository:
    """A copy of the scripts, and how to run them."""

    def __init__(self, folder: Path):
        self.root = folder / "a folder with blanks" / "hrnet"
        (self.root / "test").mkdir(parents=True)
        for script in (ROOT / "test").glob("*.sh"):
            self._copy(f"test/{script.name}")
        (self.root / "lib").symlink_to(ROOT / "lib")
        for name in ("tools/_init_paths.py", "tools/case_report.py", ".ci/run"):
            self._copy(name)
        self.data = folder / "my images"
        self.data.mkdir()
        python = folder / "python"
        python.write_text(_PROGRAM % {"python": sys.executable})
        python.chmod(0o755)
        self._record = folder / "record.json"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHON": str(python),
            "RECORD": str(self._record),
            "CANN_INFO_FILE": str(folder / "no such file"),
            "ASCEND_ROOT": str(folder / "no such folder"),
        }

    def _copy(self, name: str) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, self.root / name)

    def use_real_programs(self) -> None:
        """Put the tools and the recipes in, and this Python for the stand-in."""
        for name in ("tools", "experiments"):
            shutil.copytree(ROOT / name, self.root / name, dirs_exist_ok=True)
        self.environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def command(self, launcher: str, *words: str) -> list[str]:
        """The launcher's command line, with --data_path in front of the words."""
        return ["bash", str(self.root / "test" / launcher), f"--data_path={self.data}", *words]

    def run(
        self, launcher: str, *words: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a launcher to its end."""
        return self.run_words(self.command(launcher, *words), cwd=cwd, **environment)

    def run_words(
        self, words: list[str], cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the repository's root, or in cwd."""
        return subprocess.run(
            words,
            cwd=cwd or self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, launcher: str, **environment: str) -> subprocess.Popen[str]:
        """Start a launcher whose program waits to be stopped, and return once it does."""
        process = subprocess.Popen(
            ["env", "--default-signal=HUP", *self.command(launcher)],  # nohup lets it be ignored
            cwd=self.root,
            env=self.environment | {"MODE": "wait"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                return process
        raise AssertionError(f"the program did not start: {process.communicate()}")

    @property
    def record(self) -> dict[str, object]:
        """What the stand-in noted down of its last call."""
        return dict(json.loads(self.record_text))

    @property
    def record_text(self) -> str:
        """The same as it was written."""
        return self._record.read_text()

    @property
    def words(self) -> list[str]:
        """The program's arguments in its last call."""
        return [str(word) for word in json.loads(self.record_text)["words"]]

    def passed(self, option: str) -> str | None:
        """The value that the program got for an option; None without it."""
        words = self.words
        return words[words.index(option) + 1] if option in words else None

    @property
    def was_started(self) -> bool:
        """Whether the program was called at all."""
        return self._record.exists()


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of stderr, where the program's own error line stands in stdout."""
    (line,) = result.stderr.splitlines()
    assert not line.startswith("[Error]"), "one failure is one error line"
    assert result.stdout.count("[Error]") == 1, result.stdout
    return line


def only_error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of stderr, which has to be an error line."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("[Error] ")
    return lines[0]
