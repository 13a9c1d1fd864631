"""Parameters, multiply-adds and activations of a network."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_spec import TINY
from torch import nn

from lib.models.complexity import PUBLISHED, ModelInfo, info_table, measure_model
from lib.models.hrnet import build_hrnet

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "tools" / "model_info.py"


@pytest.fixture(autouse=True)
def _on_one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work an operator that threads would mostly wait
    yield
    torch.set_num_threads(num_threads)


def counted_by_hooks(model: nn.Module, image_size: int) -> tuple[int, int]:
    """Multiply-adds and outputs of convolutions and linear layers, on tensors without memory."""
    multiply_adds, outputs = [], []

    def count(module: nn.Module, _: tuple[torch.Tensor], output: torch.Tensor) -> None:
        weights_per_output = module.weight.numel() // module.weight.shape[0]
        multiply_adds.append(output.numel() * weights_per_output)
        outputs.append(output.numel())

    model = model.to("meta").eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(torch.empty(1, 3, image_size, image_size, device="meta"))
    return sum(multiply_adds), sum(outputs)


def meta_counts(arch: str) -> tuple[int, int]:
    with torch.device("meta"):
        model = build_hrnet(arch)
    return counted_by_hooks(model, 224)


@pytest.mark.parametrize("image_size", [32, 64])
def test_counts_equal_an_independent_count_by_hooks(image_size):
    model = build_hrnet(TINY, num_classes=7)
    info = measure_model("tiny", model, image_size=image_size)
    assert info.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (info.num_multiply_adds, info.num_activations) == counted_by_hooks(model, image_size)


def test_w18_takes_4_3_thousand_million_multiply_adds_and_the_table_says_the_unit():
    """Pitfall 26: GFLOPs are 1e9 multiply-adds and say so."""
    info = measure_model("hrnet_w18", build_hrnet("hrnet_w18"), image_size=224)
    assert info.num_parameters == 21_299_004
    assert info.num_multiply_adds / 1e9 == pytest.approx(4.3, abs=0.05)
    assert (info.num_multiply_adds, info.num_activations) == meta_counts("hrnet_w18")
    table = info_table([info], image_size=224, published=True)
    assert "GMACs: 1e9 multiply-adds" in table
    row = table.splitlines()[-1].split()
    assert row == ["hrnet_w18", "21,299,004", "4.284", "16.31", "21.3", "3.99", "4.32", "16.31"]


@pytest.mark.parametrize("arch", PUBLISHED)
def test_our_counts_explain_the_published_figures(arch):
    """The official GFLOPs are these multiply-adds over 2**30, timm's activations these outputs."""
    multiply_adds, outputs = meta_counts(arch)
    published = PUBLISHED[arch]
    assert f"{multiply_adds / 2**30:.3g}" == f"{published.official_gflops:.3g}"
    assert outputs / 1e6 == pytest.approx(published.timm_activations_millions, abs=0.006)
    # timm's also count batch norm, upsampling and pooling: less than one part in a hundred.
    assert 1 <= published.timm_gmacs * 1e9 / multiply_adds < 1.01


def test_measuring_leaves_the_model_in_its_mode_and_its_statistics_alone():
    model = build_hrnet(TINY).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure_model("tiny", model, image_size=32)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("image_size", [0, -32, 225])
def test_an_image_size_the_network_cannot_take_is_refused(image_size):
    with pytest.raises(ValueError, match=f"image size {image_size}: a multiple of 32"):
        measure_model("tiny", build_hrnet(TINY), image_size=image_size)


def test_published_columns_hold_a_dash_where_they_do_not_apply():
    info = ModelInfo("hrnet_w18", 1_000, 2_000_000_000, 3_000_000)
    for name, published in (("hrnet_w18", False), ("cls_hrnet", True)):
        row = ModelInfo(name, info.num_parameters, info.num_multiply_adds, info.num_activations)
        table = info_table([row], image_size=64, published=published)
        assert table.splitlines()[-1].split() == [name, "1,000", "2.000", "3.00", *"----"]
        assert "3 x 64 x 64" in table


def run_script(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_script_runs_from_any_folder_and_prints_nothing_but_the_table(tmp_path):
    """Pitfall 10: scripts run from any working directory."""
    experiment = REPO / "experiments" / "cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    for options in (["--arch", "hrnet_w18_small_v1"], ["--cfg", str(experiment)]):
        done = run_script(*options, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1].split()[:3] == [
            "hrnet_w18_small_v1",
            "13,187,464",
            "1.602",
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "hrnet_w18x"], "did you mean hrnet_w18"),
        (["--arch", "hrnet_w18", "--image_size", "100"], "image size 100"),
        (["--cfg", "nowhere.yaml"], "nowhere.yaml"),
        (["--arch", "hrnet_w18", "--cfg", "a.yaml"], "not allowed with"),
    ],
)
def test_the_script_answers_bad_input_with_one_line_and_exit_code_2(options, message, tmp_path):
    done = run_script(*options, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("[Error] ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
