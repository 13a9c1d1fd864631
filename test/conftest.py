"""Small data, a small network and a way to run the entry scripts, shared by the tests."""

from __future__ import annotations

import io
import os
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

REPO = Path(__file__).resolve().parent.parent
TRAIN, VALID = "tools/train.py", "tools/valid.py"

TINY_YAML = """
MODEL:
  NAME: cls_hrnet
  IMAGE_SIZE: [64, 64]
  EXTRA:
    STAGE1:
      {NUM_MODULES: 1, NUM_BRANCHES: 1, BLOCK: BOTTLENECK, NUM_BLOCKS: [1], NUM_CHANNELS: [4]}
    STAGE2:
      {NUM_MODULES: 1, NUM_BRANCHES: 2, BLOCK: BASIC, NUM_BLOCKS: [1, 1], NUM_CHANNELS: [4, 8]}
    STAGE3:
      NUM_MODULES: 1
      NUM_BRANCHES: 3
      BLOCK: BASIC
      NUM_BLOCKS: [1, 1, 1]
      NUM_CHANNELS: [4, 8, 16]
    STAGE4:
      NUM_MODULES: 1
      NUM_BRANCHES: 4
      BLOCK: BASIC
      NUM_BLOCKS: [1, 1, 1, 1]
      NUM_CHANNELS: [4, 8, 16, 32]
WORKERS: 0
PRINT_FREQ: 2
TRAIN: {BATCH_SIZE_PER_GPU: 4, END_EPOCH: 2, LR: 0.001, LR_STEP: [1]}
TEST: {BATCH_SIZE_PER_GPU: 4}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option under which tests may use the network, and what turns skips into failures."""
    parser.addoption(
        "--torch-npu-wheel",
        action="store_true",
        help="download the torch_npu wheel that test_torch_npu_wheel.py reads, if not in the cache",
    )
    parser.addoption(
        "--require-simnpu",
        action="store_true",
        help="fail, instead of skipping, where the simulated npu cannot be built",
    )


def pytest_configure() -> None:
    """Hear Ctrl-C again where a shell started the tests in the background, which ignores it.

    The programs under test inherit what this process does.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def freed_memory_is_given_back() -> Iterator[None]:
    """A process that runs hundreds of programs one after another would keep the most of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.runtime.device.keep_freed_memory", lambda: False)
        yield


def write_pictures(
    folder: Path,
    num_images: int,
    *,
    channel: int = 0,
    seed: int = 0,
    size: tuple[int, int] = (40, 48),
) -> None:
    """Write `num_images` noisy PNG pictures whose class shows in one bright channel."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(num_images):
        pixels = generator.integers(0, 128, (*size, 3), dtype=np.uint8)
        pixels[..., channel] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three easy classes: 27 pictures to train on, 11 to validate."""
    root = tmp_path_factory.mktemp("data with a space")
    for channel, (num_train, num_val) in enumerate(((9, 5), (10, 3), (8, 3))):
        write_pictures(root / "train" / f"c{channel}", num_train, channel=channel, seed=channel)
        write_pictures(root / "val" / f"c{channel}", num_val, channel=channel, seed=10 + channel)
    return root


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on a network of 64 x 64 pictures that takes milliseconds a step."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    path.write_text(TINY_YAML)
    return path


def _unpacked(name: str, factory: pytest.TempPathFactory) -> Path:
    """Unpack an archive of photographs; CONTRIBUTING.md says what they are. Skips without it."""
    place = os.environ.get("HRNET_TEST_DATA", "")
    if not place:
        pytest.skip(f"HRNET_TEST_DATA names no folder with {name}: see CONTRIBUTING.md")
    archive = Path(place, name)
    if not archive.is_file():
        pytest.skip(f"{name} is not in HRNET_TEST_DATA, {place}: see CONTRIBUTING.md")
    folder = factory.mktemp(archive.stem)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def natural_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 77 photographs at their natural sizes, in colour and grey."""
    return _unpacked("natural77.tar", tmp_path_factory)


@pytest.fixture(scope="session")
def class_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 10 classes: 20 a class in train/ and 10 a class in val/."""
    return _unpacked("imagenette224_mini.tar", tmp_path_factory)


def script_environment() -> dict[str, str]:
    """Return the environment for a script under test: one thread, nothing of an outer run."""
    outer = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ASCEND_DEVICE_ID", "ALLOW_FP32", "ALLOW_HF32")
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run_until(script: str, *arguments: object, line: str, log: Path) -> subprocess.Popen[str]:
    """Start an entry script and return it once it has printed a line that contains `line`.

    What it prints goes to `log`. The caller ends it.
    """
    with open(log, "w") as file:
        process = subprocess.Popen(
            command(script, arguments),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=script_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while line not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{line!r} was never printed:\n{log.read_text()}")
        time.sleep(0.02)
    return process


@dataclass(frozen=True)
class Done:
    """What an entry script printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


RunScript = Callable[..., Done]


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """Run an entry script within this process, which saves the seconds of loading torch."""

    def run(script: str, *arguments: object, cwd: Path | None = None) -> Done:
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            patch.setattr(sys, "argv", [str(REPO / script), *map(str, arguments)])
            if cwd is not None:
                patch.chdir(cwd)
            with pytest.raises(SystemExit) as exit_:
                runpy.run_path(str(REPO / script), run_name="__main__")
        return Done(exit_.value.code, stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture(scope="session")
def run_separately() -> RunScript:
    """Run an entry script in a process of its own."""

    def run(script: str, *arguments: object) -> Done:
        done = subprocess.run(
            command(script, arguments),
            capture_output=True,
            text=True,
            timeout=240,
            env=script_environment(),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def simulated_npu(request: pytest.FixtureRequest) -> Path:
    """The folder that PYTHONPATH needs for an npu; compiled first where that was not done yet."""
    from simnpu.build import CannotBuild, site_folder

    try:
        return site_folder()
    except CannotBuild as error:
        if request.config.getoption("--require-simnpu"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute with one thread, as the scripts under test do: results then agree to the bit."""
    torch.set_num_threads(1)


def command(script: str, arguments: Sequence[object]) -> list[str]:
    """Return the command line that runs an entry script with this Python."""
    return [sys.executable, str(REPO / script), *map(str, arguments)]
