"""The simulated npu refuses what torch_npu refuses: else the other tests would prove little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from npu_sandbox import Job, run_batch

HOST = "RuntimeError: Expected all tensors to be on the same device"
REFUSED = {
    "channels_last": "RuntimeError: Only contiguous_format or preserve_format is supported.",
    "channels_last_of_a_module": "RuntimeError: Only contiguous_format or preserve_format",
    "targets_left_on_the_host": HOST,
    "images_left_on_the_host": HOST,
    "tensors_of_two_devices": HOST,
    "fused_sgd_of_bfloat16": "TypeError: Fused optimizer's parameters must be either float32 or",
    "gradients_set_to_none": "ValueError: set_to_none is not supported in fused optimizers",
    "hf32_by_a_number": "TypeError: allow_hf32 must be a bool, but got int",
    "reading_the_internal_format": "AttributeError: ",
    "scaler_state_of_torchs_own": "KeyError: 'dynamic'",
    "scaling_on_the_host": "ValueError: Device type of outputs should be npu.",
    "use_in_a_forked_child": "RuntimeError: RuntimeError: Cannot re-initialize NPU in forked",
}


@pytest.fixture(scope="module")
def said(simulated_npu: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What it says to each."""
    job = Job("test/simnpu/refusals.py", ())
    ran = run_batch({"refusals": job}, tmp_path_factory.mktemp("refusals"))["refusals"]
    assert ran.code == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.mark.parametrize("what", REFUSED)
def test_an_npu_refuses(said: dict[str, str], what: str) -> None:
    assert said[what].startswith(REFUSED[what])


def test_every_refusal_of_an_npu_is_tried(said: dict[str, str]) -> None:
    assert said.keys() == REFUSED.keys()
