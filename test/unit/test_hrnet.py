"""The network against timm's, an independent implementation of the same paper and weight format."""

import copy
import dataclasses
import io
import math
import re
import warnings
from collections.abc import Iterator
from functools import cache

import pytest
import timm
import torch
import torch.nn.functional as F
from published import PUBLISHED
from torch import Tensor, nn

from lib.models.hrnet import (
    ARCHS,
    FuseSum,
    HighResolutionModule,
    HRNet,
    HRNetSpec,
    StageSpec,
    Transition,
    build_hrnet,
    find_spec,
)

NUM_PARAMETERS = {
    "hrnet_w18_small_v1": 13_187_464,
    "hrnet_w18_small_v2": 15_597_464,
    "hrnet_w18": 21_299_004,
    "hrnet_w30": 37_712_220,
    "hrnet_w32": 41_232_680,
    "hrnet_w40": 57_557_160,
    "hrnet_w44": 67_064_984,
    "hrnet_w48": 77_469_864,
    "hrnet_w64": 128_059_944,
}
SPOT_SHAPES = {
    "transition1.0.0.weight": (18, 256, 3, 3),
    "transition1.1.0.0.weight": (36, 256, 3, 3),
    "transition2.2.0.0.weight": (72, 36, 3, 3),
    "stage2.0.fuse_layers.0.1.0.weight": (18, 36, 1, 1),
    "stage4.2.fuse_layers.3.0.2.0.weight": (144, 18, 3, 3),
    "downsamp_modules.0.0.bias": (256,),
    "final_layer.0.bias": (2048,),
}
TINY = HRNetSpec(
    StageSpec(1, "BOTTLENECK", (1,), (8,)),
    StageSpec(1, "BASIC", (1, 1), (4, 8)),
    StageSpec(2, "BASIC", (1, 2, 1), (4, 8, 16)),
    StageSpec(1, "BASIC", (1, 1, 1, 1), (4, 8, 16, 32)),
)


@pytest.fixture(autouse=True)
def _seeded_and_on_one_thread() -> Iterator[None]:
    torch.manual_seed(0)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work an operator that threads would mostly wait
    yield
    torch.set_num_threads(num_threads)


def _timm_name(arch: str) -> str:
    return "hrnet_w18_small" if arch == "hrnet_w18_small_v1" else arch


@cache
def _skeletons(arch: str) -> tuple[HRNet, nn.Module]:
    """Ours and timm's without memory behind the weights: enough for names, shapes and counts."""
    with torch.device("meta"):
        return build_hrnet(arch), timm.create_model(_timm_name(arch))


def _pair(arch: str) -> tuple[HRNet, nn.Module]:
    """Ours and timm's with the same random weights, every BN tensor included."""
    ours, theirs = (copy.deepcopy(model).to_empty(device="cpu") for model in _skeletons(arch))
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -0.05, 0.05)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.8)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.7, 1.5)
            module.num_batches_tracked.fill_(7)
        if getattr(module, "bias", None) is not None:
            nn.init.uniform_(module.bias, -0.2, 0.2)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert torch.isfinite(theirs).all()
    scale = theirs.norm()
    assert scale > 0
    return ((ours - theirs).norm() / scale).item()


@pytest.mark.parametrize("arch", PUBLISHED)
def test_logits_gradients_and_running_statistics_equal_timms(arch):
    ours, theirs = _pair(arch)
    images = torch.randn(2, 3, 64, 64)
    targets = torch.tensor([3, 977])

    with torch.no_grad():
        logits = ours.eval()(images)
        assert logits.shape == (2, 1000)
        assert _relative_error(logits, theirs.eval()(images)) <= 1e-5

    logits, their_logits = ours.train()(images), theirs.train()(images)
    assert _relative_error(logits, their_logits) <= 1e-5
    F.cross_entropy(logits, targets).backward()
    F.cross_entropy(their_logits, targets).backward()
    their_gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    largest = max(gradient.norm().item() for gradient in their_gradients.values())
    for name, weight in ours.named_parameters():
        # The head's convolutions have a bias in front of a batch norm, which takes it out again:
        # its gradient is zero but for rounding.
        is_noise = name.startswith(("downsamp_modules", "final_layer")) and name.endswith(".0.bias")
        scale = 1e-2 * largest if is_noise else their_gradients[name].norm().item()
        assert (weight.grad - their_gradients[name]).norm().item() <= 1e-4 * scale, name
    their_buffers = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, their_buffers[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_weights_load_strictly_from_timm_and_into_timm(arch):
    ours, theirs = _skeletons(arch)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_parameter_counts_are_the_published_ones_and_in_timms_order(arch):
    ours, theirs = _skeletons(arch)
    assert sum(parameter.numel() for parameter in ours.parameters()) == NUM_PARAMETERS[arch]
    # An optimizer's state is stored by position, so the order counts too.
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]


def test_the_nine_published_networks_are_there():
    assert list(ARCHS)[: len(PUBLISHED)] == list(PUBLISHED) == list(NUM_PARAMETERS)


@pytest.mark.parametrize(("key", "shape"), SPOT_SHAPES.items())
def test_names_of_the_published_weight_format_are_kept(key, shape):
    assert _skeletons("hrnet_w18")[0].state_dict()[key].shape == shape


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (64, 32)])
def test_rectangular_and_smallest_images_give_one_row_of_logits_each(size):
    model = build_hrnet(TINY, num_classes=5).eval()
    assert model(torch.randn(3, 3, *size)).shape == (3, 5)


def test_a_rectangular_image_gives_timms_logits():
    ours, theirs = _pair("hrnet_w18_small_v1")
    images = torch.randn(1, 3, 32, 96)
    with torch.no_grad():
        assert _relative_error(ours.eval()(images), theirs.eval()(images)) <= 1e-5


def test_num_classes_changes_the_classifier_only():
    many, few = (build_hrnet(TINY, num_classes).state_dict() for num_classes in (1000, 7))
    differing = [name for name in many if many[name].shape != few[name].shape]
    assert differing == ["classifier.weight", "classifier.bias"]
    assert few["classifier.weight"].shape == (7, 2048)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, True, "10"])
def test_a_senseless_number_of_classes_is_refused(num_classes):
    with pytest.raises(ValueError, match=f"num_classes .* not {num_classes!r}"):
        build_hrnet(TINY, num_classes)


@pytest.mark.parametrize(
    "shape", [(1, 3, 224, 225), (1, 3, 100, 64), (1, 1, 64, 64), (3, 64, 64), (1, 3, 16, 16)]
)
def test_a_shape_the_network_cannot_take_is_refused_up_front(shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))) as caught:
        build_hrnet(TINY)(torch.zeros(shape))
    assert "multiples of 32" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest_and_all_names():
    """Pitfall 5: the allowed names are told."""
    for ask in (build_hrnet, find_spec):
        with pytest.raises(ValueError, match="hrnet_w23") as caught:
            ask("hrnet_w23")
        message = str(caught.value)
        assert "did you mean hrnet_w" in message
        assert all(name in message for name in ARCHS)
        assert "\n" not in message
    assert find_spec("hrnet_w48") is ARCHS["hrnet_w48"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": "basic"}, "'basic' is not one of BASIC, BOTTLENECK"),
        ({"num_modules": 0}, "num_modules .* not 0"),
        ({"num_modules": True}, "num_modules .* not True"),
        ({"num_blocks": (4, 0)}, r"num_blocks .* not \(4, 0\)"),
        ({"num_blocks": ()}, r"num_blocks .* not \(\)"),
        ({"num_channels": [18, 36]}, r"num_channels .* not \[18, 36\]"),
        ({"num_channels": (18, 36.0)}, r"num_channels .* not \(18, 36.0\)"),
        ({"num_channels": (18,)}, "one number a branch"),
    ],
)
def test_a_stage_that_makes_no_sense_cannot_be_described(change, message):
    stage = StageSpec(1, "BASIC", (4, 4), (18, 36))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(stage, **change)


def test_a_network_with_the_wrong_number_of_branches_or_modules_cannot_be_described():
    with pytest.raises(ValueError, match="stage3 has 3 branches, not 2"):
        dataclasses.replace(TINY, stage3=TINY.stage2)
    with pytest.raises(ValueError, match="stage1 is one module, not 2"):
        dataclasses.replace(TINY, stage1=dataclasses.replace(TINY.stage1, num_modules=2))


def test_specs_and_the_table_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.stage1.block = "BASIC"
    with pytest.raises(TypeError):
        ARCHS["hrnet_w18"] = TINY
    assert hash(TINY) == hash(dataclasses.replace(TINY))


def test_bottleneck_branches_and_a_basic_first_stage_work_too():
    spec = HRNetSpec(
        StageSpec(1, "BASIC", (2,), (8,)),
        StageSpec(1, "BOTTLENECK", (1, 1), (2, 4)),
        StageSpec(1, "BOTTLENECK", (1, 2, 1), (2, 4, 8)),
        StageSpec(1, "BASIC", (1, 1, 1, 1), (4, 8, 16, 32)),
    )
    assert spec.stage3.widths == (8, 16, 32)
    assert build_hrnet(spec, 3).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    "layer",
    [HighResolutionModule(TINY.stage2), FuseSum([nn.Identity(), nn.Conv2d(8, 4, 1)])],
    ids=["module", "fuse"],
)
def test_neither_a_given_list_nor_its_maps_are_changed(layer):
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]
    if isinstance(layer, FuseSum):
        maps[1] = torch.randn(2, 8, 8, 8)
    given, copies = list(maps), [x.clone() for x in maps]
    layer(maps)
    assert len(maps) == 2
    assert all(x is kept for x, kept in zip(maps, given, strict=True))
    assert all(torch.equal(x, kept) for x, kept in zip(maps, copies, strict=True))


def test_a_transition_feeds_each_branch_its_own_map_and_the_new_one_the_last():
    layer = Transition((4, 8), (4, 6, 16)).eval()
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    first, second, third = layer(maps)
    assert first is maps[0]
    torch.testing.assert_close(second, layer[1](maps[1]))
    torch.testing.assert_close(third, layer[2](maps[1]))
    assert third.shape == (1, 16, 2, 2)
    assert len(maps) == 2


def test_initial_weights_are_he_normal_over_fan_out_and_neutral_batch_norms():
    model = build_hrnet(ARCHS["hrnet_w18_small_v1"], 10)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= 50_000:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            expected = math.sqrt(2 / fan_out)
            assert module.weight.std().item() == pytest.approx(expected, rel=0.02), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name


def test_tracing_warns_of_nothing_and_holds_for_another_batch_size():
    model = build_hrnet(TINY, 5).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64))
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(traced(images), model(images))


def test_the_onnx_graph_of_opset_11_upsamples_by_constant_whole_factors():
    onnx = pytest.importorskip("onnx")
    model, file = build_hrnet(TINY, 5).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(1, 3, 64, 64),), file, dynamo=False, opset_version=11)
    graph = onnx.load_from_string(file.getvalue()).graph
    constants = {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant"
    }
    constants |= {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    factors = sorted(float(constants[node.input[2]][2]) for node in resizes)
    # stage 2: 2; stage 3, twice: 2 2 4; stage 4: 2 2 2 4 4 8.
    assert factors == sorted([2] + 2 * [2, 2, 4] + [2, 2, 2, 4, 4, 8])
    allowed = {"Conv", "Relu", "Add", "Resize", "Constant", "Identity", "Flatten", "Gemm"}
    assert {node.op_type for node in graph.node} <= allowed | {"GlobalAveragePool"}
