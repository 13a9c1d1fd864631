"""tools/pick_speed.py: what is tried, within which time, and at what cost in agreement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import RunScript

from lib.benchmark import network, picking
from lib.benchmark.network import Task
from lib.benchmark.picking import Agreement, Outcome, Way
from lib.config import load_config

SCRIPT = "tools/pick_speed.py"
CPU = torch.device("cpu")
TASK = Task("hrnet_w18_small_v1", CPU, "fp32", 2, 32, 1)
SMALL = ("MODEL.NAME", "hrnet_w18_small_v1", "MODEL.IMAGE_SIZE", "[32, 32]")


def test_every_precision_of_the_device_is_tried_at_every_batch() -> None:
    found = list(picking.ways(CPU, (2, 4), with_compile=False, is_uneven=False))
    layouts, precisions = ("auto", "contiguous"), ("fp32", "bf16")
    assert found == [Way(p, "no", b, m) for b in (2, 4) for m in layouts for p in precisions]
    compiled = list(picking.ways(CPU, (2,), with_compile=True, is_uneven=False))
    assert {way.compile_mode for way in compiled} == {"no", "default"}
    npu = type("Device", (), {"type": "npu"})()
    on_npu = list(picking.ways(npu, (2,), with_compile=True, is_uneven=True))
    assert {(way.compile_mode, way.memory_format) for way in on_npu} == {("no", "auto")}


@pytest.mark.parametrize("is_uneven", [True, False])
def test_cuda_tries_graphs_and_widths_that_suit_it_where_they_do_not(is_uneven: bool) -> None:
    found = list(picking.ways(torch.device("cuda"), (2,), with_compile=True, is_uneven=is_uneven))
    assert {way.compile_mode for way in found} == {"no", "default", "reduce-overhead"}
    assert {way.width_multiple for way in found} == ({1, 8} if is_uneven else {1})
    assert len(set(found)) == len(found)


def test_a_way_computes_with_what_it_tells_to_give() -> None:
    """Its arguments, as tools/train.py reads them, are the settings of what was timed."""
    way = Way("bf16", "reduce-overhead", 2, "contiguous", 8)
    _, precision, _, batch, *overrides = way.arguments.split()
    config = load_config(None, overrides)
    task = way.of(TASK)
    assert (task.precision, task.batch) == (precision, int(batch))
    assert task.memory_format == config.TRAIN.MEMORY_FORMAT == "contiguous"
    assert task.compile_mode == config.TRAIN.COMPILE == "reduce-overhead"
    assert task.width_multiple == config.TRAIN.WIDTH_MULTIPLE == 8


def test_the_budget_ends_the_trials_but_one_is_always_made(monkeypatch) -> None:
    monkeypatch.setattr(picking, "_measured", lambda task, way, budget_s: Outcome(way, 1.0))
    said: list[Outcome] = []
    candidates = list(picking.ways(CPU, (2, 4), with_compile=False, is_uneven=False))
    outcomes = picking.try_out(TASK, candidates, budget_s=0.0, on_outcome=said.append)
    assert len(outcomes) == len(said) == 1
    assert len(picking.try_out(TASK, candidates, budget_s=60.0, on_outcome=said.append)) == 8


def test_the_layout_of_a_way_is_that_of_weights_and_images(monkeypatch) -> None:
    seen: list[tuple[bool, bool]] = []

    def training_step(made, task):
        images, _ = picking.synthetic_batch(task)
        weight = made.stage2[0].branches[0][0].conv1.weight
        seen.append(
            tuple(x.is_contiguous(memory_format=torch.channels_last) for x in (weight, images))
        )
        return lambda: None

    monkeypatch.setattr(network, "training_step", training_step)
    for layout in ("auto", "contiguous"):
        picking._measured(TASK, Way("fp32", "no", 2, layout), budget_s=0.0)
    assert seen == [(True, True), (False, False)]


def test_a_way_without_enough_memory_is_told_and_the_others_go_on(monkeypatch) -> None:
    step = network.training_step

    def training_step(made, task):
        if task.batch == 4:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return step(made, task)

    monkeypatch.setattr(network, "training_step", training_step)
    candidates = [Way("fp32", "no", 4), Way("fp32", "no", 2)]
    first, second = picking.try_out(TASK, candidates, budget_s=60.0, on_outcome=lambda o: None)
    assert first.failure == "tried to allocate 9 GiB" and first.images_per_s == 0
    assert second.images_per_s > 0 and not second.failure


def test_float32_agrees_with_itself_and_bf16_nearly() -> None:
    assert picking.agreement(TASK, "fp32") == Agreement(0.0, 1.0)
    cost = picking.agreement(TASK, "bf16")
    assert 1e-4 < cost.relative_error < 0.2


def test_the_table_begins_with_the_fastest() -> None:
    outcomes = [
        Outcome(Way("fp32", "no", 2), 5.0),
        Outcome(Way("bf16", "default", 4), 9.0, 12.0),
        Outcome(Way("bf16", "no", 8, "contiguous"), failure="out of memory"),
    ]
    agreements = {"fp32": Agreement(0.0, 1.0), "bf16": Agreement(0.01, 0.97)}
    rows = picking.table(outcomes, agreements).splitlines()[2:]
    assert (
        rows[0] == "| `--precision bf16 --bs 4 TRAIN.COMPILE default` | 9 | 12 | 1.0e-02 | 97 % |"
    )
    assert rows[1] == "| `--precision fp32 --bs 2` | 5 |  | 0.0e+00 | 100 % |"
    assert "--bs 8 TRAIN.MEMORY_FORMAT contiguous` | out of memory |" in rows[2]


def test_it_ends_with_a_command_line_for_training(run_script: RunScript) -> None:
    done = run_script(SCRIPT, "--device", "cpu", "--batches", 2, "--minutes", 0.01, *SMALL)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("fastest: python tools/train.py DATA --cfg ")
    assert last.removesuffix(" TRAIN.MEMORY_FORMAT contiguous").endswith(
        ("--precision fp32 --bs 2", "--precision bf16 --bs 2")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes 0: more than 0"),
        (["--batches", "0"], "--batches [0]: 1 or more"),
        (["--cfg", "none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_is_one_line(run_script: RunScript, tmp_path: Path, words, said) -> None:
    done = run_script(SCRIPT, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
