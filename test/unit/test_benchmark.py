"""tools/benchmark.py: both sides do the same work, and the figures and the floor add up."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import RunScript, write_pictures

from lib.benchmark import floor, loading, network, serving
from lib.benchmark.floor import Rates, floor_of
from lib.benchmark.network import Task
from lib.benchmark.rounds import Row, processor, versions
from lib.models.complexity import ModelInfo
from lib.models.hrnet import ARCHS
from lib.offline.infer.openvino_session import computes_in_bf16

SCRIPT = "tools/benchmark.py"
SMALL = ("--arch", "hrnet_w18_small_v1", "--device", "cpu", "--batch", 2, "--image_size", 32)
TASK = Task("hrnet_w18_small_v1", torch.device("cpu"), "fp32", 2, 32, 1)


def test_both_sides_have_the_same_weights_and_give_the_same_logits() -> None:
    ours, theirs = network.ours_network(TASK), network.timms_network(TASK)
    theirs.load_state_dict(ours.state_dict())
    images, _ = network.synthetic_batch(TASK)
    with torch.inference_mode():
        assert torch.allclose(ours.eval()(images), theirs.eval()(images), atol=1e-4)


def test_timm_has_all_nine_networks() -> None:
    import timm

    assert {network.timm_name(arch) for arch in ARCHS} <= set(timm.list_models("hrnet*"))


def test_a_training_step_changes_the_weights_and_a_forward_pass_does_not() -> None:
    plain = network.ours_network(TASK)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    network._inference(plain, TASK)()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    network.training_step(plain, TASK)()
    assert not torch.equal(plain.conv1.weight, before["conv1.weight"])


def test_the_floor_is_the_slower_of_arithmetic_and_traffic() -> None:
    info = ModelInfo("x", 1, num_multiply_adds=100, num_activations=10)
    floor = floor_of(info, Rates(1000.0, 100.0), mode="infer", bytes_per_value=4)
    assert (floor.arithmetic_s, floor.traffic_s) == (0.1, 0.8)
    assert floor.images_per_s == pytest.approx(1.25)
    assert floor_of(info, Rates(1000.0, 1e9), mode="train", bytes_per_value=4).arithmetic_s == 0.3
    assert Rates(9.0, 2.0).best(Rates(8.0, 3.0)) == Rates(9.0, 3.0)


def test_ours_computes_with_the_settings_that_its_row_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Theirs is compiled in the same mode, and padded by nobody."""
    compiled: list[tuple[set[int], str]] = []

    def keep(model, device, mode):
        convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
        compiled.append(({getattr(conv, "multiple", 1) for conv in convolutions}, mode))
        return model

    monkeypatch.setattr(network.devices, "compiled", keep)
    task = replace(TASK, compile_mode="reduce-overhead", width_multiple=32)
    rows = network.measure_training(task, compiled=True)
    settings = "TRAIN.COMPILE reduce-overhead TRAIN.WIDTH_MULTIPLE 32"
    assert [(row.peer_name, row.remark) for row in rows] == [
        ("timm, eager, channels_last", settings),
        ("timm, torch.compile reduce-overhead, channels_last", settings),
    ]
    assert compiled == [({32}, "reduce-overhead"), ({1}, "no"), ({1}, "reduce-overhead")]


def test_served_networks_have_the_same_weights_and_ours_alone_is_padded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = replace(TASK, arch="hrnet_w18_small_v2", width_multiple=8)
    sides: list[torch.nn.Module] = []

    def keep(mode, case, *, ours, peer, **others):
        sides.extend((ours.args[0], peer.args[0]))
        return Row(mode, case, 1.0, 1.0, 1.0, "images/s")

    monkeypatch.setattr(network, "compare", keep)
    network.measure_inference(task, compiled=False)
    ours, theirs = sides
    images, _ = network.synthetic_batch(task)
    with torch.inference_mode():
        logits = theirs(images)
        assert (ours(images) - logits).abs().max() < 1e-4 * logits.abs().max()
    assert ours.stage2[0].branches[0][0].conv1.out_channels == 24
    assert theirs.stage2[0].branches[0][0].conv1.out_channels == 18
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in ours.modules())


@pytest.mark.parametrize(
    ("kind", "words", "ours", "with_compiled_timm"),
    [
        ("cpu", [], ("no", 1), False),
        ("cpu", ["--compile"], ("no", 1), True),
        ("cuda", [], ("reduce-overhead", 8), True),
        ("cuda", ["--ours_compile", "no", "--ours_multiple", "1"], ("no", 1), True),
        ("npu", ["--compile"], ("no", 1), False),
    ],
)
def test_each_device_has_its_sides(
    kind, words, ours, with_compiled_timm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile is not there on npu, and takes minutes on the cpu."""
    import benchmark

    monkeypatch.setattr("sys.argv", ["benchmark.py", "train", "--precision", "bf16", *words])
    args = benchmark._parse()
    (task,) = benchmark._tasks(args, SimpleNamespace(type=kind))
    assert (task.compile_mode, task.width_multiple) == ours
    assert benchmark._compiles_timms(args, task) == with_compiled_timm


def test_bfloat16_is_asked_for_where_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def open_session(path, *, precision, **others):
        asked.append(precision)
        return SimpleNamespace(run=lambda arrays: None)

    monkeypatch.setattr(serving, "open_session", open_session)
    monkeypatch.setattr(serving, "computes_in_bf16", lambda: True)
    monkeypatch.setattr(serving, "_BATCHES_A_ROUND", 1)
    models = serving.Models("x", None, Path("x.onnx"), None, 1, 32, False)
    rows = serving.measure_against(
        models, torch.nn.Identity(), "timm", goals={"float32": 1.5}, backends=["openvino"], rounds=1
    )
    assert [(row.case.split(", ")[2], row.goal) for row in rows] == [
        ("float32", 1.5),
        ("float32 computed in bfloat16", None),
    ]
    assert asked == ["fp32", "bf16"]


def test_the_cpu_has_no_memory_figure() -> None:
    assert network.measure_memory(TASK) == []


def test_the_table_the_json_and_the_floor_come_out(
    run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "_SIDE", 64)  # seconds less, and rates of no matter
    monkeypatch.setattr(floor, "_MEBI_VALUES", 1)
    done = run_script(
        SCRIPT, "train", "infer", *SMALL, "--rounds", 1, "--json", tmp_path / "rows.json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    ways = ["ONNX Runtime, float32", "OpenVINO, float32"]
    if computes_in_bf16():
        ways.append("OpenVINO, float32 computed in bfloat16")
    assert [row["mode"] for row in rows] == ["train", "infer", *["infer"] * len(ways)]
    assert [row["case"] for row in rows[2:]] == [
        f"hrnet_w18_small_v1, {way}, batch 2" for way in ways
    ]
    assert {"mode", "case", "ours", "peer", "ratio", "unit", "goal_row"} <= rows[0].keys()
    assert "| train: hrnet_w18_small_v1, 32, batch 2, fp32 | timm, eager" in done.stdout
    floors = done.stdout.splitlines()[-2:]
    assert [line.split(":")[0] for line in floors] == [
        "train, hrnet_w18_small_v1",
        "infer, hrnet_w18_small_v1",
    ]


def test_several_networks_are_measured_in_turn_and_the_loader_once(
    run_script: RunScript, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def row(task, compiled):
        return [Row("train", task.case, 2.0, 1.0, 2.0, "images/s", 1.0, "timm")]

    calls: list[int] = []
    monkeypatch.setattr(network, "measure_training", row)
    monkeypatch.setattr(loading, "measure", lambda *_, **__: calls.append(1) or [])
    write_pictures(tmp_path, 1)
    words = ("--arch", "hrnet_w18", "hrnet_w48", "--device", "cpu", "--data_path", tmp_path)
    done = run_script(SCRIPT, "train", "loader", *words, "--no_floor")
    assert done.returncode == 0, done.stderr
    table = done.stdout.rstrip().splitlines()[-2:]
    assert [row.split(",")[0] for row in table] == ["| train: hrnet_w18", "| train: hrnet_w48"]
    assert len(calls) == 1


def test_a_report_names_machine_command_and_rows(
    run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("train", "as it is", 2.0, 1.0, 2.0, "images/s", 1.0, "timm")
    for name in ("measure_training", "measure_inference"):
        monkeypatch.setattr(network, name, lambda task, compiled: [row])
    monkeypatch.setattr(network, "measure_memory", lambda task: [])
    monkeypatch.setattr(network, "timms_network", lambda task: None)
    monkeypatch.setattr(serving, "make_models", lambda *_, **__: None)
    monkeypatch.setattr(serving, "measure_against", lambda *_, **__: [])
    monkeypatch.setattr(loading, "measure", lambda *_, **__: [])
    import _init_paths

    monkeypatch.setattr(_init_paths, "ROOT", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    write_pictures(tmp_path / "pictures", 1)
    done = run_script(SCRIPT, "--all", *SMALL, "--data_path", tmp_path / "pictures", "--no_floor")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "BENCHMARKS.md").read_text()
    assert text.startswith("# Benchmarks\n")
    assert "python tools/benchmark.py --all --arch hrnet_w18_small_v1" in text
    assert text.count("| train: as it is | timm | 2 | 1 | images/s | 2.00 | 1 |  |") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "'fly' is none of train, infer, loader, memory"),
        ([], "give one or more of train, infer, loader, memory"),
        (["loader"], "--data_path DIR is needed for loader"),
        (["train", "--arch", "hrnet_w18x"], "did you mean hrnet_w18"),
        (["train", "--image_size", "100"], "--image_size 100: a multiple of 32"),
        (["train", "--rounds", "0"], "--rounds 0: 1 or more"),
    ],
)
def test_what_it_cannot_measure_is_one_line(run_script: RunScript, words, said) -> None:
    done = run_script(SCRIPT, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_processor_is_named_with_the_instructions_that_decide() -> None:
    """Two machines of one model name differ threefold in int8 where one lacks avx512_vnni."""
    about = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
    others = about.replace("Some", "Another").replace("avx512_vnni", "")
    assert processor(f"{about}\n{others}") == "Some CPU (avx2, avx512f, avx512_vnni)"
    arm = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"
    assert processor(arm) == f"{platform.machine()} (asimd, asimddp)"
    assert processor("") == platform.machine()


def test_releases_are_those_of_the_packages_that_are_there() -> None:
    assert versions(("torch", "no-such-package", "timm")) == f"torch {version('torch')}, timm " + (
        version("timm")
    )
