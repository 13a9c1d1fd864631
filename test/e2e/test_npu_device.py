"""The device module on a simulated npu, and what the simulation counts as a wait of the host."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import REPO
from npu_sandbox import Job, npu_environment, run_batch

WAITS = (
    "nonzero", "masked_select", "boolean index", "boolean assignment", "unique",
    "unique_consecutive", "bincount", "repeat_interleave", "item", "equal", "tolist",
)  # fmt: skip
GOES_ON = ("integer index", "integer assignment", "where", "sum", "max")


@pytest.fixture(scope="module")
def answers(simulated_npu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What test/simnpu/answers.py prints."""
    job = Job("test/simnpu/answers.py", ())
    ran = run_batch({"answers": job}, tmp_path_factory.mktemp("answers"))["answers"]
    assert ran.code == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_what_makes_the_host_wait_for_an_npu_is_counted_and_nothing_else(answers: dict) -> None:
    """Pitfall 20: also where only the size of the result depends on the data."""
    assert answers["waits"] == {**dict.fromkeys(WAITS, True), **dict.fromkeys(GOES_ON, False)}


def test_an_npus_generator_goes_on_from_a_state_that_is_put_back(answers: dict) -> None:
    """Pitfall 15."""
    assert answers["random numbers"] == [True, False]


def test_the_peak_of_an_npus_memory_is_counted_anew_after_a_reset(answers: dict) -> None:
    assert answers["peaks"] == [True, False]


def test_a_copy_to_an_npu_from_memory_that_is_not_pinned_is_noted(answers: dict) -> None:
    assert answers["copies"] == {"plain": ["to device", "not pinned"], "pinned": ["to device"]}


def test_to_synchronize_waits_for_an_npu(answers: dict) -> None:
    assert answers["synchronize"] == ["synchronize"]


def test_the_doctor_finds_that_torch_fits_an_npus_torch_npu_and_computes(
    simulated_npu: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, REPO / "tools/doctor.py", "--device", "npu"],
        env=npu_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    torch = version("torch")
    assert f"ok: torch {torch} and torch_npu {torch.partition('+')[0]}+simulated fit" in lines
    assert "ok: torch computes on npu:0 (Ascend simulated)" in lines
    assert lines[-1].startswith("verdict: training can start on npu")
