"""tools/train.py and tools/valid.py on a simulated npu, in every precision.

The simulation shows that the path runs, moves every tensor and computes what the CPU computes. It
says nothing about speed, nor about an npu's own kernels.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import TRAIN, VALID, RunScript
from npu_sandbox import Event, Job, Ran, largest_difference, run_batch, weights_of

from lib.runtime import device as devices

NUM_STEPS, BATCH_SIZE, PRINT_FREQ = 5, 6, 2  # of 27 pictures
PICTURES = Event("to device", "Byte", BATCH_SIZE * 64 * 64 * 3)
TARGETS = Event("to device", "Long", BATCH_SIZE)
READING = Event("to host", "Long", 9)  # the sums, the loss scale and the first bad step at once
NUMBER = Event("to host", "Float", 1)
WAIT = Event("synchronize", "", 0)
PRECISIONS = ("fp32", "hf32", "fp16", "bf16")
IN_PARTS = ("TRAIN.ACCUM_STEPS", 2, "TRAIN.CHECKPOINT_ACTIVATIONS", "True")
SEEN_OTHERWISE = ("--subset", "TEST.FLIP", "true", "TEST.IMAGE_SIZE", 96)
RECIPE = (
    "TRAIN.SCHEDULE", "cosine", "TRAIN.WARMUP_EPOCHS", 0.5, "TRAIN.EMA_DECAY", 0.9,
    "TRAIN.CLIP_GRAD_NORM", 0.5, "TRAIN.HEAD_LR_FACTOR", 3, "TRAIN.LAYER_DECAY", 0.8,
    "TRAIN.WD_NORM_BIAS", "false", "MODEL.FREEZE", "stem",
    "AUG.MIXUP", 0.4, "AUG.CUTMIX", 1, "TRAIN.LOSS", "bce", "TRAIN.LABEL_SMOOTHING", 0.1,
    "TRAIN.CLASS_WEIGHTS", "balanced", "DISTILL.WEIGHT", 0.5,
)  # fmt: skip
ON_CPU = {
    "sgd": (),
    "adam": ("TRAIN.OPTIMIZER", "adam"),
    "in parts": IN_PARTS,
    "recipe": RECIPE,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all run folders of this module."""
    return tmp_path_factory.mktemp("npu runs")


@pytest.fixture(scope="module")
def on_cpu(runs: Path, tiny_data: Path, tiny_yaml: Path, run_script: RunScript) -> None:
    """The CPU's own runs, with what an npu uses, since other kernels round differently.

    That is the contiguous layout, and an Adam that is not fused.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "has_fused_optimizers", lambda device: False)
        teacher = ("DISTILL.TEACHER", runs / "cpu sgd/final_state.pth.tar")
        for name, overrides in ON_CPU.items():
            done = run_script(
                TRAIN, tiny_data, "--cfg", tiny_yaml, "--out", runs / f"cpu {name}", "--fp32",
                "--bs", BATCH_SIZE, "--train_epochs", 1, "--device", "cpu",
                "TRAIN.MEMORY_FORMAT", "contiguous", *overrides,
                *(teacher if name == "recipe" else ()),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def ran(
    simulated_npu: Path, runs: Path, on_cpu: None, tiny_data: Path, tiny_yaml: Path
) -> dict[str, Ran]:
    """All calls of this module, made in one process."""

    def train(out: str, *arguments: object, sigterm: int = 0, **environment: str) -> Job:
        general = (tiny_data, "--cfg", tiny_yaml, "--out", runs / out, "--bs", BATCH_SIZE)
        words = (*general, "--train_epochs", 1, *arguments)
        return Job(TRAIN, words, environment, sigterm_after_step=sigterm)

    def valid(out: str, *arguments: object) -> Job:
        general = (tiny_data, "--cfg", tiny_yaml, "--testModel", runs / "fp32/model_best.pth.tar")
        return Job(VALID, (*general, "--out", runs / out, "--bs", 4, *arguments))

    two_epochs = ("--train_epochs", 2, "--precision", "fp16")
    five_steps = ("--stop_step", NUM_STEPS)  # a whole epoch, without weights to write
    three_steps = ("--fp32", "--stop_step", 3)
    cpu_weights = runs / "cpu sgd/final_state.pth.tar"
    jobs = {
        # The first, so that card 0 has not been used before.
        "option": train("option", *three_steps, "--device_id", 1),
        "fp32": train("fp32", "--device", "npu", "--fp32", "--workers", 2),
        "hf32": train("hf32", *five_steps, ALLOW_HF32="1"),
        "fp16": train("fp16", *five_steps),
        "bf16": train("bf16", *five_steps, "--precision", "bf16"),
        "in parts": train("in parts", "--fp32", *IN_PARTS),
        "adam": train("adam", "--fp32", "TRAIN.OPTIMIZER", "adam"),
        "recipe": train("recipe", "--fp32", *RECIPE, "DISTILL.TEACHER", cpu_weights),
        "recipe fp16": train("recipe fp16", "--precision", "fp16", *RECIPE),
        "recipe apex": train("recipe apex", "TRAIN.AMP_BACKEND", "apex", *RECIPE),
        "variable": train("variable", *three_steps, "--device_id", 0, ASCEND_DEVICE_ID="1"),
        "no such device": train("none", "--device_id", 2),
        "no such variable": train("none", ASCEND_DEVICE_ID="5"),
        "compiled": train("none", "TRAIN.COMPILE", "default"),
        "too many cards": train("none", "--cards", 3),
        "no cuda": train("none", "--device", "cuda"),
        "whole": train("whole", *two_epochs),
        "stopped": train("stopped", *two_epochs, sigterm=3),
        "resumed": train("stopped", *two_epochs, "--auto_resume"),
        "pretrained": train("pretrained", *three_steps, "--pretrained", cpu_weights),
        "profile": train("profile", *three_steps, PROFILE_TYPE="GE", PROFILE_START_STEP="0"),
        "valid": valid("eval", "--fp32", "--per_class"),
        "valid fp16": valid("eval fp16"),
        "valid on cpu": valid("eval cpu", "--device", "cpu"),
        "valid seen otherwise": valid("eval seen otherwise", "--fp32", *SEEN_OTHERWISE),
        "the same on cpu": valid("eval otherwise cpu", "--device", "cpu", *SEEN_OTHERWISE),
        "apex": train("apex", "TRAIN.AMP_BACKEND", "apex"),
    }
    return run_batch(jobs, runs)


def result_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "result.json").read_text()))


@pytest.mark.parametrize(
    "name",
    [*PRECISIONS, "in parts", "adam", "recipe", "recipe fp16", "recipe apex", "option", "variable",
     "whole", "resumed", "pretrained", "profile", "valid", "valid fp16", "valid on cpu", "apex"],
)  # fmt: skip
def test_a_run_on_an_npu_ends_well(ran: dict[str, Ran], name: str) -> None:
    assert ran[name].code == 0, ran[name].stderr
    # Some name their epochs after the shared options did.
    lines = ran[name].stderr.splitlines()
    assert [line for line in lines if "--train_epochs is given twice" not in line] == []


@pytest.mark.parametrize(
    ("name", "same"),
    [("fp32", "sgd"), ("adam", "adam"), ("in parts", "in parts"), ("recipe", "recipe")],
)
def test_five_steps_on_an_npu_give_the_weights_that_they_give_on_the_cpu(
    ran: dict[str, Ran], runs: Path, name: str, same: str
) -> None:
    """NpuFusedSGD, Adam as torch has it, and SGD with accumulated gradients and checkpointing.

    The recipe's weights are averaged ones, of parameter groups with limited gradients, and learn
    from mixed pictures with other losses, class weights and a teacher.
    """
    difference = largest_difference(weights_of(runs / name), weights_of(runs / f"cpu {same}"))
    assert difference <= 1e-6


def test_a_batch_in_two_parts_is_one_step_of_two_backward_and_four_forward_passes(
    ran: dict[str, Ran],
) -> None:
    """TRAIN.ACCUM_STEPS, and TRAIN.CHECKPOINT_ACTIVATIONS for nearly all maps."""
    whole, in_parts = (
        Counter(event.kind for event in next(ran[name].between("NpuFusedSGD")))
        for name in ("fp32", "in parts")
    )
    assert whole["backward"] == whole["forward"] > 50
    assert in_parts["backward"] == 2 * whole["backward"]
    assert 3.5 * whole["forward"] < in_parts["forward"] <= 4 * whole["forward"]


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_log_and_the_result_name_the_npu_and_the_precision(
    ran: dict[str, Ran], runs: Path, name: str
) -> None:
    """Mixed fp16 is what an npu does unasked."""
    assert f"device npu:0 (Ascend simulated), 1 card(s), precision {name}" in ran[name].stdout
    result = result_of(runs / name if name == "fp32" else runs / name / "performance")
    assert (result["device"], result["precision"]) == ("npu", name)
    assert result["peak_memory_mib"] > 50
    assert math.isfinite(result["train_loss"])


@pytest.mark.parametrize("name", ["hf32", "fp16", "bf16"])
def test_the_lower_precisions_begin_with_the_loss_of_fp32(ran: dict[str, Ran], name: str) -> None:
    def first_loss(of: str) -> float:
        line = next(line for line in ran[of].stdout.splitlines() if "Epoch: [0][0/5]" in line)
        return float(line.split("Loss ")[1].split()[0])

    assert first_loss(name) == pytest.approx(first_loss("fp32"), rel=0.02)


@pytest.mark.parametrize(("name", "rounds"), [("fp32", False), ("hf32", True)])
def test_fp32_forbids_and_hf32_allows_rounded_products_and_convolutions(
    ran: dict[str, Ran], name: str, rounds: bool
) -> None:
    """Pitfall 9: torch_npu rounds convolutions unasked."""
    assert ran[name].settings == {
        "conv.allow_hf32": rounds,
        "matmul.allow_hf32": rounds,
        "jit_compile": False,
        "allow_internal_format": False,
    }


@pytest.mark.parametrize("name", PRECISIONS)
def test_sgd_is_torch_npus_fused_one(ran: dict[str, Ran], name: str) -> None:
    num_steps = len(ran[name].kinds("NpuFusedSGD"))
    assert num_steps == NUM_STEPS or (name == "fp16" and num_steps > 0)  # some overflow


def timing(step: int) -> list[Event]:
    """The first two steps are timed by themselves."""
    return [WAIT] * (step < 2)


def reading(step: int) -> list[Event]:
    return [READING] * (step % PRINT_FREQ == 0)


@pytest.mark.parametrize("name", ["fp32", "hf32", "bf16", "adam", "recipe"])
def test_one_reading_a_log_interval_is_all_that_leaves_an_npu(
    ran: dict[str, Ran], name: str
) -> None:
    """Pitfall 20."""
    between_steps = list(ran[name].between("Adam" if name == "adam" else "NpuFusedSGD"))
    assert len(between_steps) == NUM_STEPS - 1
    for step, events in enumerate(between_steps):
        waits = [event for event in events if event.kind in ("to host", "synchronize")]
        assert waits == [*timing(step), *reading(step)], f"after step {step}"


@pytest.mark.parametrize("name", ["fp16", "recipe fp16"])
def test_in_fp16_the_loss_scalers_one_number_a_step_leaves_the_npu_too(
    ran: dict[str, Ran], name: str
) -> None:
    """Pitfall 20: torch_npu's scaler asks the device for an overflow; nothing else waits for it."""
    between_losses = list(ran[name].between("scaled loss"))
    assert len(between_losses) == NUM_STEPS - 1
    for step, events in enumerate(between_losses):
        waits = [event for event in events if event.kind in ("to host", "synchronize")]
        assert waits == [NUMBER, *timing(step), *reading(step)], f"after step {step}"


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("fp32", "NpuFusedSGD"),
        ("hf32", "NpuFusedSGD"),
        ("fp16", "scaled loss"),
        ("bf16", "NpuFusedSGD"),
        ("adam", "Adam"),
        ("recipe", "NpuFusedSGD"),
        ("recipe fp16", "scaled loss"),
    ],
)
def test_pictures_travel_as_bytes_and_nothing_travels_but_they_and_their_classes(
    ran: dict[str, Ran], name: str, mark: str
) -> None:
    between_steps = list(ran[name].between(mark))
    assert len(between_steps) == NUM_STEPS - 1
    for events in between_steps[:-1]:  # the last batch is smaller
        assert [event for event in events if event.kind == "to device"] == [PICTURES, TARGETS]
        assert "not pinned" not in {event.kind for event in events}


@pytest.mark.parametrize("name", ["fp16", "whole", "stopped", "resumed"])
def test_no_gradient_of_fp16_comes_from_a_loss_without_a_scale(
    ran: dict[str, Ran], name: str
) -> None:
    """Pitfall 23."""
    assert ran[name].backward_dtypes() == {"Half"}
    is_scaled = False
    for kind in (event.kind for event in ran[name].events):
        if kind == "backward":
            assert is_scaled
        elif kind in ("scaled loss", "NpuFusedSGD"):
            is_scaled = kind == "scaled loss"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", "Float"), ("hf32", "Float"), ("adam", "Float"), ("fp16", "Half"),
     ("bf16", "BFloat16"), ("apex", "Half")],
)  # fmt: skip
def test_gradients_of_maps_are_computed_in_what_the_precision_says(
    ran: dict[str, Ran], name: str, dtype: str
) -> None:
    assert ran[name].backward_dtypes() == {dtype}


@pytest.mark.parametrize("name", ["option", "variable"])
def test_another_card_is_made_the_current_one(ran: dict[str, Ran], name: str) -> None:
    """Pitfall 37: --device_id, and ASCEND_DEVICE_ID before it."""
    assert "device npu:1 (Ascend simulated)" in ran[name].stdout
    assert ran[name].device == 1
    assert ran["fp32"].device == 0


def test_the_memory_in_the_result_is_that_of_the_card_in_use(
    ran: dict[str, Ran], runs: Path
) -> None:
    """Nothing but some numbers comes to lie on another card."""
    first, second = (peak / 2**20 for peak in ran["option"].peak_bytes)
    assert first < 1 and second > 50
    result = result_of(runs / "option/performance")
    assert result["peak_memory_mib"] == pytest.approx(second, abs=0.1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no such device", "--device_id 2: this machine has npu 0..1"),
        ("no such variable", "--device_id by ASCEND_DEVICE_ID=5: this machine has npu 0..1"),
        ("compiled", "TRAIN.COMPILE default: not on npu; leave it at no"),
        ("too many cards", "--cards 3: this machine has 2"),
        ("no cuda", "--device cuda: there is none on this machine; try --device npu"),
    ],
)
def test_a_card_that_is_not_there_is_one_line_and_exit_code_2(
    ran: dict[str, Ran], name: str, said: str
) -> None:
    assert ran[name].code == 2
    assert ran[name].stderr == f"[Error] {said}\n"


def test_a_run_on_an_npu_that_is_stopped_goes_on_as_if_it_had_not_been(
    ran: dict[str, Ran], runs: Path
) -> None:
    """Pitfalls 13 and 15: also what the fused optimizer and torch_npu's loss scaler keep."""
    assert ran["stopped"].code == 143
    assert "stopped by SIGTERM" in ran["stopped"].stderr
    assert "resumed" in ran["resumed"].stdout
    assert largest_difference(weights_of(runs / "stopped"), weights_of(runs / "whole")) == 0
    saved = [
        torch.load(runs / name / "checkpoint.pth.tar", weights_only=True)
        for name in ("stopped", "whole")
    ]
    assert saved[0]["precision"] == saved[1]["precision"]
    assert saved[0]["precision"]["scaler"]["dynamic"] is True


def test_weights_of_a_cpu_run_start_one_on_an_npu(ran: dict[str, Ran]) -> None:
    assert "pretrained weights" in ran["pretrained"].stdout


def test_an_npus_checkpoint_holds_nothing_of_the_npu(ran: dict[str, Ran], runs: Path) -> None:
    """Pitfall 15: it opens on a machine without one."""

    def tensors(content: object) -> list[torch.Tensor]:
        if isinstance(content, dict):
            content = list(content.values())
        if isinstance(content, list):
            return [tensor for one in content for tensor in tensors(one)]
        return [content] if isinstance(content, torch.Tensor) else []

    found = tensors(torch.load(runs / "whole/checkpoint.pth.tar", weights_only=True))
    assert len(found) > 500
    assert {tensor.device.type for tensor in found} == {"cpu"}


def test_an_evaluation_on_an_npu_gives_the_figures_of_the_training_and_of_the_cpu(
    ran: dict[str, Ran], runs: Path
) -> None:
    """Pitfall 28."""
    on_npu, on_cpu = result_of(runs / "eval"), result_of(runs / "eval cpu")
    assert (on_npu["device"], on_cpu["device"]) == ("npu", "cpu")
    assert on_npu["accuracy_top1"] == on_cpu["accuracy_top1"]
    assert on_npu["accuracy_top1"] == result_of(runs / "fp32")["best_accuracy_top1"]
    assert on_npu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3)
    assert result_of(runs / "eval fp16")["loss"] == pytest.approx(on_cpu["loss"], rel=0.02)
    assert (runs / "eval/per_class.csv").is_file()


def test_an_evaluation_reads_its_sums_once(ran: dict[str, Ran]) -> None:
    """Pitfall 20: per_class adds its table of counts."""
    to_host = [event for event in ran["valid fp16"].events if event.kind == "to host"]
    assert to_host == [READING]
    pictures = [e for e in ran["valid fp16"].events if e.kind == "to device" and e.dtype == "Byte"]
    assert len(pictures) == 3


def test_mirror_images_some_outputs_and_another_size_are_evaluated_on_an_npu_as_on_the_cpu(
    ran: dict[str, Ran], runs: Path
) -> None:
    on_npu, on_cpu = (
        result_of(runs / f"eval {name}") for name in ("seen otherwise", "otherwise cpu")
    )
    assert (on_npu["device"], on_npu["image_size"]) == ("npu", 96)
    assert on_npu["num_outputs_compared"] == 3 and "flip" in on_npu
    assert on_npu["accuracy_top1"] == on_cpu["accuracy_top1"]
    assert on_npu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3)
    assert on_npu["loss"] != result_of(runs / "eval")["loss"]
    to_host = [e for e in ran["valid seen otherwise"].events if e.kind == "to host"]
    assert to_host == [READING]


def test_the_profiler_of_an_npu_traces_the_steps_asked_for(ran: dict[str, Ran], runs: Path) -> None:
    """torch_npu's schedule has its arguments in another order than torch's: they go by name."""
    (trace,) = (runs / "profile/performance/profile").iterdir()
    assert json.loads(trace.read_text()) == {"steps": [1, 2]}  # wait 0, warm-up 1


def test_apexs_o2_runs_on_an_npu_with_an_optimizer_that_it_can_wrap(
    ran: dict[str, Ran], runs: Path
) -> None:
    """Pitfall 11. A stand-in with apex's interface; apex for Ascend is a package of its own."""
    assert "precision fp16 (apex O2, dynamic loss scale)" in ran["apex"].stdout
    assert not ran["apex"].kinds("NpuFusedSGD")
    num_steps = len(ran["apex"].kinds("SGD"))
    assert num_steps > 0
    state = torch.load(runs / "apex/checkpoint.pth.tar", weights_only=True)["precision"]["apex"]
    scale = 2.0 ** (16 - NUM_STEPS + num_steps)  # halved for each step that was left out
    assert state == {"loss_scaler0": {"loss_scale": scale, "unskipped": num_steps}}
