"""The launchers with the real programs on two simulated npus, with a CANN to source."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from launcher_sandbox import Repository
from npu_sandbox import Ran, largest_difference, npu_environment, reports, weights_of
from torch.nn import functional as F

from lib.config.load import load_config
from lib.data.build import read_train_val
from lib.data.loading import LoaderOptions, train_loader
from lib.data.normalize import Normalize
from lib.models.build import build_model

OPTIONS = ("--cfg=tiny.yaml", "--bs=4", "--workers=0", "--lr=0.001")
TWO_CARDS = (*OPTIONS, "--cards=2", "--train_epochs=1")
CARDS = (0, 1)


@dataclass(frozen=True)
class Launched:
    """What a launcher and its program have left."""

    done: subprocess.CompletedProcess[str]
    ranks: dict[int, Ran]
    logs: dict[str, str]  # the files in its output folder


class Machine:
    """A copy of the repository on a machine with CANN and two npus."""

    def __init__(self, folder: Path, data: Path, yaml: Path):
        self.repo = Repository(folder)
        self.repo.use_real_programs()
        self.repo.data = data
        shutil.copy(yaml, self.repo.root / "tiny.yaml")
        self.repo.environment |= {"PYTHONPATH": npu_environment()["PYTHONPATH"]}

    def install_cann(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "set_env.sh").write_text(f"export ASCEND_HOME_PATH='{folder}'\n")

    def launch(self, launcher: str, *words: str, **environment: str) -> Launched:
        report = self.repo.root.parent / f"report {launcher}"
        environment = {"SIMNPU_REPORT": str(report), **environment}
        done = self.repo.run(launcher, *words, cwd=self.repo.root, **environment)
        output = self.repo.root / "test/output/0"
        logs = {path.name: path.read_text() for path in output.glob("*.log")}
        assert done.returncode == 0, done.stdout + done.stderr
        return Launched(done, reports(report), logs)


@pytest.fixture(scope="module")
def machine(
    simulated_npu: Path, tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_yaml: Path
) -> Machine:
    return Machine(tmp_path_factory.mktemp("npu machine"), tiny_data, tiny_yaml)


@pytest.fixture(scope="module")
def full_1p(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """One card, as it comes; CANN in the usual place."""
    ascend = tmp_path_factory.mktemp("Ascend")
    machine.install_cann(ascend / "cann")
    return machine.launch("train_full_1p.sh", *OPTIONS, "--train_epochs=1", ASCEND_ROOT=str(ascend))


@pytest.fixture(scope="module")
def eval_1p(
    machine: Machine, full_1p: Launched, tmp_path_factory: pytest.TempPathFactory
) -> Launched:
    """Of the run before; CANN where the installer's note says."""
    noted = tmp_path_factory.mktemp("noted")
    machine.install_cann(noted / "ascend-toolkit")
    (noted / "note").write_text(f"Install_Path={noted}\n")
    return machine.launch(
        "train_eval_1p.sh", "--cfg=tiny.yaml", "--bs=4", CANN_INFO_FILE=str(noted / "note")
    )


@pytest.fixture(scope="module")
def performance_1p(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """CANN prepared by the user before."""
    cann = str(tmp_path_factory.mktemp("cann"))
    return machine.launch(
        "train_performance_1p.sh", *OPTIONS, "--stop_step=5", "--hf32", ASCEND_HOME_PATH=cann
    )


@pytest.fixture(scope="module")
def full_8p(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Two cards in fp32, in a run folder of its own."""
    cann = str(tmp_path_factory.mktemp("cann"))
    words = (*TWO_CARDS, "--fp32", "--out=two cards")
    return machine.launch("train_full_8p.sh", *words, ASCEND_HOME_PATH=cann)


@pytest.fixture(scope="module")
def performance_8p(machine: Machine) -> Launched:
    """Two cards in fp16; no CANN is found, and torch_npu is loaded because an npu is asked for."""
    words = (*TWO_CARDS, "--stop_step=3", "--device=npu")
    return machine.launch("train_performance_8p.sh", *words)


def case_log(launched: Launched, name: str) -> dict[str, str]:
    text = launched.logs[f"HRNet_ID1780_for_PyTorch_{name}.log"]
    return dict(line.split(" = ") for line in text.splitlines())


def test_a_full_run_on_one_npu_trains_in_fp16_and_reports(full_1p: Launched) -> None:
    assert "CANN from" in full_1p.done.stdout
    assert "device npu:0 (Ascend simulated), 1 card(s), precision fp16" in full_1p.done.stdout
    assert full_1p.ranks[0].kinds("scaled loss")
    assert full_1p.ranks[0].device == 0
    case = case_log(full_1p, "bs4_1p_acc")
    assert float(case["TrainAccuracy"]) >= 0 and float(case["ActualFPS"]) > 0
    assert "Final Train Accuracy : " in full_1p.done.stdout


def test_an_evaluation_on_one_npu_gives_the_accuracy_of_its_training(
    machine: Machine, full_1p: Launched, eval_1p: Launched
) -> None:
    assert "ascend-toolkit/set_env.sh" in eval_1p.done.stdout
    assert "device npu:0" in eval_1p.done.stdout
    folder = machine.repo.root / "output/imagenet/tiny"
    trained = json.loads((folder / "result.json").read_text())
    evaluated = json.loads((folder / "eval/result.json").read_text())
    assert evaluated["device"] == "npu"
    assert evaluated["accuracy_top1"] == trained["best_accuracy_top1"]


def test_a_performance_run_on_one_npu_measures_in_hf32(performance_1p: Launched) -> None:
    assert "CANN from the environment as it is" in performance_1p.done.stdout
    assert performance_1p.ranks[0].settings["conv.allow_hf32"] is True
    assert len(performance_1p.ranks[0].kinds("NpuFusedSGD")) == 5
    assert float(case_log(performance_1p, "bs4_1p_perf")["ActualFPS"]) > 0


@pytest.mark.parametrize("name", ["full_8p", "performance_8p"])
def test_each_rank_has_a_card_of_its_own_and_touches_no_other(
    request: pytest.FixtureRequest, name: str
) -> None:
    """Pitfall 24."""
    launched: Launched = request.getfixturevalue(name)
    assert launched.ranks.keys() == set(CARDS)
    for rank, ran in launched.ranks.items():
        assert ran.device == rank
        assert [peak > 0 for peak in ran.peak_bytes] == [card == rank for card in CARDS]
    assert "rank 1 of 2 on npu:1" in launched.logs["rank_1.log"]


def test_gradients_of_two_npus_travel_over_hccl_and_counts_do_not(full_8p: Launched) -> None:
    """Pitfall 20: counts go over gloo in host memory, without waiting for the device."""
    for ran in full_8p.ranks.values():
        num_steps = len(ran.kinds("NpuFusedSGD"))
        assert num_steps == 4
        assert len(ran.kinds("all-reduce")) >= num_steps
        between_steps = list(ran.between("NpuFusedSGD"))[1:]  # in the first DDP settles its order
        for step, events in enumerate(between_steps, start=1):
            to_host = [event.numel for event in events if event.kind == "to host"]
            assert to_host == ([9] if step % 2 == 0 else []), f"after step {step}"
            assert any(event.kind == "all-reduce" for event in events)


def test_two_npus_give_the_weights_of_two_networks_whose_gradients_are_averaged(
    machine: Machine, full_8p: Launched
) -> None:
    """The oracle: both ranks' networks in this process, on the CPU, with torch's own SGD."""
    repo = machine.repo
    config = load_config(repo.root / "tiny.yaml", [])
    images, _ = read_train_val(repo.data, train_set="train", val_set="val")
    torch.manual_seed(config.SEED)
    first = build_model(config, num_classes=3)
    networks = [first, copy.deepcopy(first)]
    options = {"lr": 2 * 0.001, "momentum": 0.9, "weight_decay": config.TRAIN.WD, "nesterov": True}
    optimizers = [torch.optim.SGD(network.parameters(), **options) for network in networks]
    loaders = [
        train_loader(
            images,
            LoaderOptions(batch_size=4, image_size=64, seed=config.SEED, rank=rank, world_size=2),
            scale=tuple(config.AUG.CROP_SCALE),
            ratio=tuple(config.AUG.CROP_RATIO),
            hflip=config.AUG.HFLIP,
        )
        for rank in CARDS
    ]
    normalize = Normalize()
    for batches in zip(*loaders, strict=True):
        for network, optimizer, batch in zip(networks, optimizers, batches, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(normalize(batch.images)), batch.targets).backward()
        for parameters in zip(*(network.parameters() for network in networks), strict=True):
            mean = sum(parameter.grad for parameter in parameters) / len(parameters)
            for parameter in parameters:
                parameter.grad = mean.clone()
        for optimizer in optimizers:
            optimizer.step()
    trained = weights_of(repo.root / "two cards")
    assert largest_difference(trained, first.state_dict()) <= 1e-6


def test_a_performance_run_on_two_npus_counts_both(performance_8p: Launched) -> None:
    """Pitfall 36."""
    assert "no CANN found" in performance_8p.done.stdout
    assert case_log(performance_8p, "bs4_2p_perf")["RankSize"] == "2"
    assert "2 card(s), precision fp16" in performance_8p.done.stdout
    assert all(len(ran.kinds("scaled loss")) == 3 for ran in performance_8p.ranks.values())
