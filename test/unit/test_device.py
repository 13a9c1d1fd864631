"""What differs between npu, cuda and cpu; the npu and cuda paths run against stand-ins."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from lib.runtime import device as devices

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
# torch knows the name npu only once torch_npu is loaded.
NPU = SimpleNamespace(type="npu", index=0)
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine with some accelerators; the returned list fills with indices chosen."""

    def build(kind, num_devices=0):
        chosen = []
        monkeypatch.setattr(devices, "_accelerator", lambda: kind)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: num_devices)
        monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
        return chosen

    return build


@pytest.fixture
def npu(monkeypatch):
    """A stand-in for the module torch.npu."""
    module = SimpleNamespace(
        config=SimpleNamespace(), conv=SimpleNamespace(), matmul=SimpleNamespace(), modes=[]
    )
    module.set_compile_mode = lambda jit_compile: module.modes.append(jit_compile)
    module.get_device_name = lambda device: "Ascend910"
    module.max_memory_allocated = lambda device: 3 * 2**20
    module.amp = SimpleNamespace(GradScaler=lambda: "torch_npu's own scaler")
    monkeypatch.setattr(devices, "_module", lambda device: module)
    return module


@pytest.fixture
def torch_npu(monkeypatch):
    """A stand-in for torch_npu, with its fused SGD and its profiler."""

    class NpuFusedSGD(torch.optim.SGD):
        pass

    module = ModuleType("torch_npu")
    module.optim = SimpleNamespace(NpuFusedSGD=NpuFusedSGD)
    module.profiler = SimpleNamespace(
        schedule=lambda **steps: steps,
        tensorboard_trace_handler=lambda folder: folder,
        profile=lambda **options: options,
    )
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    return module


@pytest.fixture
def without_torch_npu(monkeypatch):
    """Make importing torch_npu fail, as where it is not installed."""
    monkeypatch.setitem(sys.modules, "torch_npu", None)


def test_auto_takes_the_accelerator_that_is_there(machine):
    chosen = machine("cuda", 2)
    assert devices.select_device("auto", 1) == torch.device("cuda", 1)
    assert chosen == [1]


def test_auto_without_an_accelerator_is_the_cpu(machine):
    machine(None)
    assert devices.select_device("auto", 5) == CPU


def test_the_cpu_can_be_asked_for_beside_an_accelerator(machine):
    chosen = machine("cuda", 2)
    assert devices.select_device("cpu") == CPU
    assert chosen == []


def test_an_accelerator_that_torch_knows_and_this_project_does_not_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="mps")
    )
    assert devices.select_device("auto") == CPU


def test_an_unknown_device_names_the_known_ones():
    """Pitfall 5."""
    with pytest.raises(ValueError, match="--device 'gpu' is not one of auto, npu, cuda, cpu"):
        devices.select_device("gpu")


@pytest.mark.parametrize(("there", "advice"), [(None, "cpu"), ("npu", "npu")])
def test_a_device_that_is_not_there_says_which_is(there, advice, machine):
    machine(there, 1)
    with pytest.raises(ValueError, match=f"--device cuda: there is none .* --device {advice}"):
        devices.select_device("cuda")


@pytest.mark.parametrize("index", [2, -1])
def test_an_index_beyond_the_devices_names_the_range(index, machine):
    machine("cuda", 2)
    with pytest.raises(ValueError, match=f"--device_id {index}: this machine has cuda 0..1"):
        devices.select_device("auto", index)


def test_npu_without_torch_npu_says_what_to_install(without_torch_npu):
    """Pitfall 11."""
    for ask in (devices.select_device, devices.num_devices):
        with pytest.raises(ValueError, match="torch_npu cannot be imported") as caught:
            ask("npu")
        assert "requirements_npu.txt" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libhccl.so: cannot open shared object file\nmore"),
        RuntimeError("Two accelerators cannot be used at the same time"),
        OSError("libc10.so: cannot open shared object file"),
        AttributeError("module 'torch' has no attribute 'x'"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_torch_npu_fails_with_is_one_line(error, tmp_path, monkeypatch):
    folder = tmp_path / "torch_npu"
    folder.mkdir()
    (folder / "__init__.py").write_text(f"raise {error!r}\n")
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="--device npu: torch_npu cannot be imported") as caught:
        devices.select_device("npu")
    assert f"({type(error).__name__}: {str(error).splitlines()[0]}); " in str(caught.value)
    assert ("set_env.sh" in str(caught.value)) == ("libhccl" in str(error))
    assert "\n" not in str(caught.value)


def test_what_gave_an_index_beyond_the_devices_is_named(machine):
    machine("cuda", 2)
    with pytest.raises(ValueError, match=r"^ASCEND_DEVICE_ID=5: this machine has cuda 0\.\.1$"):
        devices.select_device("auto", 5, index_source="ASCEND_DEVICE_ID=")


def test_devices_are_counted_but_not_on_the_cpu(machine):
    machine("cuda", 4)
    assert devices.num_devices("auto") == devices.num_devices("cuda") == 4
    assert devices.num_devices("cpu") is None
    machine(None)
    assert devices.num_devices("auto") is None


def test_an_npu_is_counted_once_torch_npu_is_loaded(machine, torch_npu):
    machine("npu", 8)
    assert devices.num_devices("npu") == 8


def test_each_device_has_its_own_collective_backend():
    assert [devices.collective_backend(d) for d in (NPU, CUDA, CPU)] == ["hccl", "nccl", "gloo"]


def test_mixed_precision_is_the_default_on_accelerators_only():
    assert [devices.default_precision(d) for d in (NPU, CUDA, CPU)] == ["fp16", "fp16", "fp32"]


def test_npu_keeps_the_contiguous_layout_that_it_needs():
    assert devices.memory_format(NPU) is torch.contiguous_format
    assert devices.memory_format(CUDA) is torch.channels_last
    assert devices.memory_format(CPU) is torch.channels_last
    assert devices.memory_format(CPU, "contiguous") is torch.contiguous_format
    assert devices.memory_format(NPU, "contiguous") is torch.contiguous_format
    with pytest.raises(ValueError, match="MEMORY_FORMAT channels_last: npu has none"):
        devices.memory_format(NPU, "channels_last")


@pytest.mark.parametrize(
    ("benchmark", "deterministic", "expected"),
    [(True, False, (True, False)), (True, True, (False, True)), (False, False, (False, False))],
)
def test_cudnn_may_search_only_where_it_need_not_be_deterministic(
    benchmark, deterministic, expected, monkeypatch
):
    cudnn = SimpleNamespace(benchmark=None, deterministic=None)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    devices.configure(CUDA, cudnn_benchmark=benchmark, cudnn_deterministic=deterministic)
    assert (cudnn.benchmark, cudnn.deterministic) == expected


def test_npu_is_set_up_before_the_model_moves(npu):
    devices.configure(NPU, cudnn_benchmark=True, cudnn_deterministic=False)
    assert npu.modes == [False]
    assert npu.config.allow_internal_format is False


@pytest.mark.parametrize("allowed", [True, False])
def test_hf32_is_switched_for_convolutions_and_products_alike(allowed, npu, monkeypatch):
    """Pitfall 9: torch_npu rounds convolutions by default, so fp32 has to forbid it."""
    devices.allow_hf32(NPU, allowed)
    assert npu.conv.allow_hf32 is npu.matmul.allow_hf32 is allowed
    cudnn, cuda = SimpleNamespace(), SimpleNamespace(matmul=SimpleNamespace())
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends, "cuda", cuda)
    devices.allow_hf32(CUDA, allowed)
    assert cudnn.allow_tf32 is cuda.matmul.allow_tf32 is allowed


def test_no_setting_of_an_accelerator_is_touched_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends, "cudnn", None)
    devices.configure(CPU, cudnn_benchmark=True, cudnn_deterministic=True)
    devices.allow_hf32(CPU, True)
    devices.synchronize(CPU)


def test_the_cpu_alone_keeps_freed_memory_for_the_next_step(npu, monkeypatch):
    calls = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: calls.append(1))
    devices.configure(NPU, cudnn_benchmark=True, cudnn_deterministic=False)
    assert calls == []
    devices.configure(CPU, cudnn_benchmark=True, cudnn_deterministic=False)
    assert calls == [1]


def test_a_device_describes_itself(npu):
    assert devices.describe(CPU).startswith("cpu (")
    assert f"{torch.get_num_threads()} threads" in devices.describe(CPU)
    assert "Ascend910" in devices.describe(NPU)


def test_memory_and_generators_of_the_cpu_are_not_a_devices(npu):
    assert devices.peak_memory_mib(CPU) is None
    assert devices.rng_state(CPU) is None
    assert devices.peak_memory_mib(NPU) == 3.0


def test_npu_takes_its_own_loss_scaler(npu):
    """Pitfall 23: on Ascend 910A only torch_npu's scaler sees an overflow."""
    assert devices.grad_scaler(NPU) == "torch_npu's own scaler"
    assert type(devices.grad_scaler(CPU)) is torch.amp.GradScaler


def test_npu_takes_its_fused_sgd_for_weights_that_it_can_hold(torch_npu):
    weights = nn.Linear(2, 2)
    fused = devices.sgd(weights.parameters(), NPU, **SGD)
    assert type(fused) is torch_npu.optim.NpuFusedSGD
    assert fused.defaults["nesterov"] is True and fused.defaults["weight_decay"] == 1e-4
    assert devices.keeps_gradients(fused)
    plain = devices.sgd(weights.to(torch.bfloat16).parameters(), NPU, **SGD)
    assert type(plain) is torch.optim.SGD
    assert not devices.keeps_gradients(plain)


def test_fused_optimizers_are_torchs_where_torch_has_them():
    assert [devices.has_fused_optimizers(d) for d in (NPU, CUDA, CPU)] == [False, True, True]
    optimizer = devices.sgd(nn.Linear(2, 2).parameters(), CPU, **SGD)
    assert optimizer.defaults["fused"] is True


def test_the_profiler_traces_a_few_steps(tmp_path):
    with devices.profiler(CPU, tmp_path, first_step=1) as profiler:
        for _ in range(6):
            torch.ones(2).sum()
            profiler.step()
    (trace,) = tmp_path.iterdir()
    assert trace.name.endswith(".json")


def test_the_profiler_of_an_npu_is_torch_npus(torch_npu, tmp_path):
    options = devices.profiler(NPU, tmp_path, first_step=7)
    assert options["schedule"]["wait"] == 7
    assert options["on_trace_ready"] == str(tmp_path)


def test_a_network_is_compiled_where_it_is_asked_for(monkeypatch):
    network, asked = nn.Linear(1, 1), []
    monkeypatch.setattr(torch, "compile", lambda model, **how: asked.append(how) or model)
    assert devices.compiled(network, CPU, "no") is network and asked == []
    devices.compiled(network, CUDA, "reduce-overhead")
    assert asked == [{"mode": "reduce-overhead", "dynamic": False}]
    with pytest.raises(ValueError, match="TRAIN.COMPILE default: not on npu"):
        devices.compiled(network, NPU, "default")


def test_the_peak_memory_counts_anew(monkeypatch):
    reset = []
    module = SimpleNamespace(reset_peak_memory_stats=reset.append)
    monkeypatch.setattr(devices, "_module", lambda device: module)
    devices.reset_peak_memory(CPU)
    devices.reset_peak_memory(CUDA)
    assert reset == [CUDA]
