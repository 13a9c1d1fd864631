"""tools/pick_speed.py: what is tried, within which time, and at what cost in agreement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import RunScript
from tiny_spec import TINY

from lib.benchmark import network, picking, task_queue
from lib.benchmark.network import Task
from lib.benchmark.picking import Agreement, Outcome
from lib.config.load import load_config
from lib.models.hrnet import build_hrnet

SCRIPT = "tools/pick_speed.py"
CPU = torch.device("cpu")
TASK = Task("hrnet_w18_small_v1", CPU, "fp32", 2, 32, 1)
SMALL = ("MODEL.NAME", "hrnet_w18_small_v1", "MODEL.IMAGE_SIZE", "[32, 32]")


def on(kind: str, arch: str = "hrnet_w18") -> Task:
    return replace(TASK, arch=arch, device=SimpleNamespace(type=kind))


def way(precision: str, batch: int, **settings: object) -> Task:
    return replace(TASK, precision=precision, batch=batch, **settings)


def test_every_precision_of_the_device_is_tried_at_every_batch() -> None:
    found = list(picking.ways(TASK, (2, 4), with_compile=False))
    layouts, precisions = ("auto", "contiguous"), ("fp32", "bf16")
    assert found == [
        way(p, b, memory_format=m) for b in (2, 4) for m in layouts for p in precisions
    ]


@pytest.mark.parametrize(
    ("kind", "modes", "layouts", "multiples"),
    [
        ("cpu", {"no", "default"}, {"auto", "contiguous"}, {1}),
        ("cuda", {"no", "default", "reduce-overhead"}, {"auto", "contiguous"}, {1, 8}),
        ("npu", {"no"}, {"auto"}, {1}),
    ],
)
def test_what_is_tried_suits_device_and_network(kind, modes, layouts, multiples) -> None:
    found = list(picking.ways(on(kind), (2,), with_compile=True))
    assert {task.compile_mode for task in found} == modes
    assert {task.memory_format for task in found} == layouts
    assert {task.width_multiple for task in found} == multiples
    even = list(picking.ways(on(kind, "hrnet_w32"), (2,), with_compile=True))
    assert {task.width_multiple for task in even} == {1}


@pytest.mark.parametrize("yaml", [[], ["TRAIN.WIDTH_MULTIPLE", "8", "TRAIN.COMPILE", "default"]])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compile_mode": "reduce-overhead", "width_multiple": 8},
        {"memory_format": "contiguous"},
    ],
)
def test_a_way_computes_with_what_it_tells_to_give(yaml, settings) -> None:
    """Also where the yaml says something else."""
    task = way("bf16", 2, **settings)
    _, precision, _, batch, *overrides = picking.arguments(task, load_config(None, yaml)).split()
    train = load_config(None, [*yaml, *overrides]).TRAIN
    assert (task.precision, task.batch) == (precision, int(batch))
    assert (task.memory_format, task.compile_mode) == (train.MEMORY_FORMAT, train.COMPILE)
    assert task.width_multiple == train.WIDTH_MULTIPLE


def test_more_ways_than_torch_keeps_are_all_compiled(monkeypatch) -> None:
    """Beyond its limit for a class it computes eagerly, with no more than a warning."""
    import torch._dynamo

    num_graphs: list[int] = []

    def compiled(made, device, mode):
        def count(graph, example_inputs):
            num_graphs[-1] += 1
            return graph

        return torch.compile(made, backend=count, dynamic=False)

    def timed(step, budget_s):
        num_graphs.append(0)
        step()
        return [1.0]

    known = hasattr(torch._dynamo.config, "recompile_limit")  # the name since torch 2.7
    limit = {"recompile_limit" if known else "cache_size_limit": 1}
    monkeypatch.setattr(network.devices, "compiled", compiled)
    monkeypatch.setattr(network, "build_hrnet", lambda *_: build_hrnet(TINY, 3))
    monkeypatch.setattr(network, "_NUM_CLASSES", 3)
    monkeypatch.setattr(picking, "_timed", timed)
    # Its own patch: an attribute that pytest puts back may be gone for the tests that follow.
    with torch._dynamo.config.patch(**limit):
        picking.try_out([way("fp32", 2)] * 2, budget_s=60.0, on_outcome=lambda outcome: None)
    assert num_graphs == [1, 1]


def test_the_budget_ends_the_trials_but_one_is_always_made(monkeypatch) -> None:
    monkeypatch.setattr(picking, "_measured", lambda way, budget_s: Outcome(way, 1.0))
    said: list[Outcome] = []
    candidates = list(picking.ways(TASK, (2, 4), with_compile=False))
    outcomes = picking.try_out(candidates, budget_s=0.0, on_outcome=said.append)
    assert len(outcomes) == len(said) == 1
    assert len(picking.try_out(candidates, budget_s=60.0, on_outcome=said.append)) == 8


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
        picking._measured(way("fp32", 2, memory_format=layout), budget_s=0.0)
    assert seen == [(True, True), (False, False)]


def test_a_way_without_enough_memory_is_told_and_the_others_go_on(monkeypatch) -> None:
    step = network.training_step

    def training_step(made, task):
        if task.batch == 4:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return step(made, task)

    monkeypatch.setattr(network, "training_step", training_step)
    candidates = [way("fp32", 4), way("fp32", 2)]
    first, second = picking.try_out(candidates, budget_s=60.0, on_outcome=lambda o: None)
    assert first.failure == "tried to allocate 9 GiB" and first.images_per_s == 0
    assert second.images_per_s > 0 and not second.failure


def test_float32_agrees_with_itself_and_bf16_nearly() -> None:
    assert picking.agreement(TASK, "fp32") == Agreement(0.0, 1.0)
    cost = picking.agreement(TASK, "bf16")
    assert 1e-4 < cost.relative_error < 0.2


def test_the_table_begins_with_the_fastest() -> None:
    outcomes = [
        Outcome(way("fp32", 2), 5.0),
        Outcome(way("bf16", 4, compile_mode="default"), 9.0, 12.0),
        Outcome(way("bf16", 8, memory_format="contiguous"), failure="out of memory"),
    ]
    agreements = {"fp32": Agreement(0.0, 1.0), "bf16": Agreement(0.01, 0.97)}
    rows = picking.table(outcomes, agreements, load_config()).splitlines()[2:]
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
    assert "MODEL.NAME hrnet_w18_small_v1 MODEL.IMAGE_SIZE '[32, 32]' --precision" in last
    assert last.removesuffix(" TRAIN.MEMORY_FORMAT contiguous").endswith(
        ("--precision fp32 --bs 2", "--precision bf16 --bs 2")
    )


def test_ways_that_other_settings_do_not_allow_are_left_out(
    run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training would refuse the line."""
    tried: list[Task] = []

    def try_out(candidates, *, budget_s, on_outcome):
        tried[:] = candidates
        return [Outcome(candidates[0], 1.0)]

    monkeypatch.setattr(picking, "try_out", try_out)
    monkeypatch.setattr(picking, "agreement", lambda task, precision: Agreement(0.0, 1.0))
    batches = ("--device", "cpu", "--batches", 2, 4, "--compile")
    assert run_script(SCRIPT, "TRAIN.ACCUM_STEPS", 3, *batches).returncode == 0
    assert {task.batch for task in tried} == {4}
    modes = {"cpu": ("no", "default", "reduce-overhead")}
    monkeypatch.setattr(picking, "_MODES", modes)
    assert run_script(SCRIPT, "TRAIN.ACCUM_STEPS", 3, *batches).returncode == 0
    assert {task.compile_mode for task in tried} == {"no", "default"}
    done = run_script(SCRIPT, "TRAIN.ACCUM_STEPS", 5, *batches)
    assert done.returncode == 2 and "5 micro-batches are more than the 2 images" in done.stderr


@pytest.mark.parametrize(
    ("printed", "setting"),
    [
        ("--precision fp16 --bs 64: 130 images/s\nfastest: x\n", "TASK_QUEUE_ENABLE=2 "),
        ("--precision fp16 --bs 64: 100.5 images/s\n", ""),
        ("--precision fp16 --bs 64: out of memory\n", ""),
        ("", ""),
    ],
)
def test_the_deeper_queue_is_tried_on_an_npu_with_the_fastest_way(
    printed, setting, monkeypatch
) -> None:
    """Fault A6: Ascend advises it where the host is the limit."""
    levels: list[str] = []

    def run(command, *, env, **options):
        levels.append(env["TASK_QUEUE_ENABLE"])
        return SimpleNamespace(stdout=printed)

    monkeypatch.setattr(task_queue.subprocess, "run", run)
    said: list[str] = []
    assert task_queue.setting_if_faster(["pick_speed"], 100.0, said.append) == setting
    assert levels == ["2"] and said[0].startswith("TASK_QUEUE_ENABLE=2: ")


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        ("cuda", {}),
        ("npu", {"TASK_QUEUE_ENABLE": "2"}),
        ("npu", {"ASCEND_LAUNCH_BLOCKING": "1"}),
    ],
)
def test_the_deeper_queue_is_not_tried_where_it_means_nothing(kind, variables, monkeypatch) -> None:
    """Fault A6."""
    monkeypatch.delenv("ASCEND_LAUNCH_BLOCKING", raising=False)
    monkeypatch.delenv("TASK_QUEUE_ENABLE", raising=False)
    assert task_queue.is_worth_trying("npu")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not task_queue.is_worth_trying(kind)


def test_precisions_may_be_chosen(run_script: RunScript) -> None:
    asked = (SCRIPT, "--device", "cpu", "--batches", 2, "--minutes", 0.01, *SMALL, "--precisions")
    done = run_script(*asked, "int8")
    assert done.returncode == 2 and "--precisions int8: none that cpu has" in done.stderr


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
