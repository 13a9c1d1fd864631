"""What lib/runtime/device.py asks of torch_npu exists in the wheel that requirements_npu.txt pins.

The wheel's sources are read, never imported: that needs CANN. They come from a cache folder; the
download (about 30 MB) is done only where `-m torch_npu_wheel` or --torch-npu-wheel asks for it, and
where the registry is out of reach the tests are skipped.
"""

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from wheel_sources import Found, Wheel, uses

from lib.runtime import device as devices

pytestmark = pytest.mark.torch_npu_wheel

REPO = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "hrnet-tests"
# Asked for by name, so that any Python on any machine reads the same sources.
PLATFORM = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
PLATFORM += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
DOWNLOAD_TIMEOUT_S = 150
ROOTS = {"_module": "torch_npu.npu", "_import_torch_npu": "torch_npu"}
SOURCE = Path(devices.__file__).read_text()
USES = uses(SOURCE, ROOTS)
CALLS = [use for use in USES if use.call]


def pinned():
    """The version in requirements_npu.txt."""
    text = (REPO / "requirements_npu.txt").read_text()
    return re.search(r"^torch_npu==(\S+)$", text, re.MULTILINE)[1]


def is_asked_for(config):
    chosen = config.getoption("markexpr")
    by_marker = "torch_npu_wheel" in chosen and "not torch_npu_wheel" not in chosen
    return by_marker or config.getoption("--torch-npu-wheel")


def cached(version):
    return next(iter(CACHE.glob(f"torch_npu-{version}-*.whl")), None)


def download(version):
    """Put the wheel into the cache; skip the tests where the registry does not answer."""
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pytest.skip(f"no cache folder for the torch_npu wheel: {error}")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", f"torch_npu=={version}", "--no-deps"]
        command += ["--only-binary", ":all:", *PLATFORM, "--dest", folder, "--quiet"]
        command += ["--timeout", "10", "--retries", "1", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"no torch_npu {version} from the registry in {DOWNLOAD_TIMEOUT_S} s")
        if done.returncode != 0:
            others = re.search(r"from versions: (?!none)(.+)\)", done.stderr)
            assert others is None, f"the registry has no torch_npu {version}, only {others[1]}"
            said = done.stderr.strip().splitlines() or ["pip said nothing"]
            pytest.skip(f"torch_npu {version} cannot be downloaded: {said[-1]}")
        (file,) = Path(folder).glob("*.whl")
        return file.rename(CACHE / file.name)


@pytest.fixture(scope="module")
def wheel(request):
    version = pinned()
    path = cached(version)
    if path is None and not is_asked_for(request.config):
        pytest.skip(f"torch_npu {version} is not in {CACHE}; -m torch_npu_wheel downloads it")
    return Wheel(path or download(version), "torch_npu")


def definition(wheel, name):
    found = wheel.find(name)
    assert isinstance(found, Found), f"the wheel has no {name}"
    return found


def parameters(wheel, name):
    return wheel.signature(definition(wheel, name)).parameters


def raises_when(function, argument):
    """The exceptions that a function raises right under `if argument:`."""
    return [
        ast.unparse(line.exc.func)
        for node in ast.walk(function)
        if isinstance(node, ast.If) and ast.unparse(node.test) == argument
        for line in node.body
        if isinstance(line, ast.Raise)
    ]


def test_the_npu_names_of_the_device_module_are_found():
    """Chains, local names, settings and conditional expressions; each is checked below."""
    assert {use.name.removeprefix("torch_npu.") for use in USES} >= {
        "npu.amp.GradScaler",
        "npu.config.allow_internal_format",
        "npu.set_compile_mode",
        "optim.NpuFusedSGD",
        "profiler.schedule",
    }


@pytest.mark.parametrize(
    "line",
    ["f(_module(d))", "return _module(d)", "getattr(_module(d), 'x')", "n = _module(d); f(n)"],
)
def test_an_npu_module_that_goes_elsewhere_is_noticed(line):
    with pytest.raises(ValueError, match="goes where it is not followed"):
        uses(f"def function(d):\n    {line}", ROOTS)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.name)
def test_every_npu_name_exists(wheel, use):
    if use.is_set:
        owner, _, attribute = use.name.rpartition(".")
        setter = wheel.member(definition(wheel, owner), "__setattr__")
        assert f"name == '{attribute}'" in ast.unparse(setter.node)
    else:
        assert wheel.find(use.name) is not None


@pytest.mark.parametrize("use", CALLS, ids=lambda use: use.name)
def test_every_npu_call_fits_its_signature(wheel, use):
    keywords = {keyword.arg: keyword.value for keyword in use.call.keywords}
    assert None not in keywords, "** hides what is passed"
    wheel.signature(definition(wheel, use.name)).bind(*use.call.args, **keywords)


def test_npu_fused_sgd_takes_what_torchs_sgd_does(wheel):
    sgd = parameters(wheel, "torch_npu.optim.NpuFusedSGD")
    assert list(sgd) == ["params", "lr", "momentum", "dampening", "weight_decay", "nesterov"]
    module = definition(wheel, "torch_npu.optim.NpuFusedSGD").module
    dampening = wheel.find(f"{module}.{ast.unparse(sgd['dampening'].default)}")
    assert ast.literal_eval(dampening.node) == 0, "Nesterov's momentum needs it"


def test_npu_fused_sgd_refuses_to_drop_gradients(wheel):
    """What `keeps_gradients` is for."""
    sgd = definition(wheel, "torch_npu.optim.NpuFusedSGD")
    assert sgd.node.name.startswith("NpuFused")
    zero_grad = wheel.member(sgd, "zero_grad")
    assert raises_when(zero_grad.node, "set_to_none") == ["ValueError"]
    assert zero_grad.node.args.args[1].arg == "set_to_none"
    assert ast.literal_eval(zero_grad.node.args.defaults[0]) is False


def test_npu_fused_sgd_takes_float32_and_float16_alone(wheel):
    base = definition(wheel, "torch_npu.optim.NpuFusedOptimizerBase").node
    combine = next(n for n in base.body if getattr(n, "name", "").endswith("params_and_grads"))
    text = ast.unparse(combine)
    assert "p.dtype == torch.float32" in text and "p.dtype == torch.float16" in text
    assert "raise TypeError" in text and "bfloat16" not in text


def test_the_npu_profilers_schedule_has_an_order_of_its_own(wheel):
    """Why lib/runtime/device.py names its arguments: torch's order is wait, warmup, active."""
    order = list(parameters(wheel, "torch_npu.profiler.schedule"))
    assert order[:4] == ["wait", "active", "warmup", "repeat"]
    (call,) = [use.call for use in CALLS if use.name == "torch_npu.profiler.schedule"]
    assert not call.args


def test_the_npu_profiler_is_a_context_with_steps(wheel):
    profile = definition(wheel, "torch_npu.profiler.profile")
    for method in ("__enter__", "__exit__", "step"):
        assert wheel.member(profile, method) is not None, method
    assert next(iter(parameters(wheel, "torch_npu.profiler.tensorboard_trace_handler"))) == (
        "dir_name"
    )


def test_npu_generators_take_the_state_before_the_device(wheel):
    assert list(parameters(wheel, "torch_npu.npu.set_rng_state")) == ["new_state", "device"]
    assert list(parameters(wheel, "torch_npu.npu.get_rng_state")) == ["device"]
    (call,) = [use.call for use in CALLS if use.name.endswith(".set_rng_state")]
    assert list(map(ast.unparse, call.args)) == ["state", "device"]


def test_npu_seeding_through_torch_has_what_it_calls(wheel):
    """torch.manual_seed asks the device's module for these two."""
    assert list(parameters(wheel, "torch_npu.npu.manual_seed_all")) == ["seed"]
    assert list(parameters(wheel, "torch_npu.npu._is_in_bad_fork")) == []


@pytest.mark.parametrize(("unit", "by_default"), [("conv", True), ("matmul", False)])
def test_npu_rounds_convolutions_by_default_and_products_not(wheel, unit, by_default):
    """Why plain fp32 has to forbid it."""
    getter = wheel.member(definition(wheel, f"torch_npu.npu.{unit}"), "__getattr__")
    text = ast.unparse(getter.node)
    assert ("hf32_value is None" in text, "hf32_value is not None" in text) == (
        by_default,
        not by_default,
    )


def test_the_npu_loss_scaler_is_torchs_with_another_overflow_check(wheel):
    scaler = definition(wheel, "torch_npu.npu.amp.GradScaler")
    (base,) = map(ast.unparse, scaler.node.bases)
    imports = [n for n in wheel.tree(scaler.module).body if isinstance(n, ast.ImportFrom)]
    (origin,) = [n.module for n in imports for a in n.names if base in (a.asname, a.name)]
    assert origin.startswith("torch.amp")
    assert wheel.member(scaler, "_unscale_grads_") is not None
    assert ast.literal_eval(parameters(wheel, "torch_npu.npu.amp.GradScaler")["enabled"].default)


def test_npu_is_registered_with_torch_at_the_start(wheel):
    """`torch.get_device_module`, and the backend that `collective_backend` names."""
    calls = [
        (ast.unparse(node.func).rpartition(".")[2], [ast.unparse(a) for a in node.args])
        for tree in wheel.start_up.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    assert ("_register_device_module", ["'npu'", "torch_npu.npu"]) in calls
    backends = [arguments[0] for name, arguments in calls if name == "register_backend"]
    assert "'hccl'" in backends


def test_torch_loads_npu_support_by_itself_and_its_failure_is_recognised(wheel):
    """What lib/runtime/cli.py and lib/doctor go by where CANN is not there, or a CUDA device is."""
    assert "[torch.backends]\ntorch_npu = torch_npu:_autoload" in wheel.text("entry_points.txt")
    start = "".join(map(ast.unparse, wheel.start_up.values()))
    assert "libhccl.so" in start and "Two accelerators cannot be used" in start


def test_the_npu_wheel_pins_the_torch_that_the_requirements_name(wheel):
    metadata = wheel.text("METADATA")
    pin = re.search(r"^Requires-Dist: torch *\(?== *(\d+(\.\d+)*)", metadata, re.MULTILINE)
    text = (REPO / "requirements_npu.txt").read_text()
    assert f"\ntorch=={pin[1]}\n" in text
