"""Other projects' weights: their names, their files, and what is refused of them."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from foreign_hrnets import MMPretrain, Paddle, fill
from safetensors.torch import save_file
from torch import nn

from lib.models.hrnet import ARCHS, build_hrnet
from lib.models.weights.conversion import converted
from lib.models.weights.load import WeightFile, find_misfits, load_weights, read_weights
from lib.models.weights.pdparams import read_pdparams

NUM_CLASSES = 5
SEVEN = (18, 30, 32, 40, 44, 48, 64)
FORMS: dict[str, Callable[[int], nn.Module]] = {
    "mmpretrain": lambda width: MMPretrain(width, NUM_CLASSES),
    "PaddleClas": lambda width: Paddle(width, NUM_CLASSES),
    "PaddleClas, old": lambda width: Paddle(width, NUM_CLASSES, old=True),
}


def written(network: nn.Module, form: str, folder: Path) -> Path:
    """The network's weights in a file as their project writes it."""
    weights = network.state_dict()
    if form == "mmpretrain":
        path = folder / "mm.pth"
        torch.save({"state_dict": weights, "meta": {"epoch": 100}}, path)
        return path
    path = folder / "x.pdparams"
    arrays: dict[str, object] = {name: value.numpy() for name, value in weights.items()}
    arrays["StructuredToParameterName@@"] = dict.fromkeys(weights, "conv2d_0.w_0")
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    return path


def logits(network: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return network.eval()(images)


def filled(make: Callable[[], nn.Module]) -> nn.Module:
    """A network of random numbers; without the time that its own initialisation takes."""
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    fill(network, seed=1)
    return network


def our_network(width: int) -> nn.Module:
    return filled(lambda: build_hrnet(ARCHS[f"hrnet_w{width}"], NUM_CLASSES))


@functools.cache
def our_shapes(width: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return build_hrnet(ARCHS[f"hrnet_w{width}"], NUM_CLASSES).state_dict()


@pytest.mark.parametrize("form", FORMS)
def test_foreign_weights_give_the_logits_that_they_give_under_their_own_names(
    form: str, tmp_path: Path
) -> None:
    theirs, ours = filled(lambda: FORMS[form](18)), our_network(18)
    said = load_weights(ours, read_weights(written(theirs, form, tmp_path)))
    assert said.endswith(f", {form.partition(',')[0]}'s names converted")
    expected = logits(theirs)
    assert expected.std() > 0.01, "the comparison would be of nothing"
    torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["mmpretrain", "PaddleClas"])
def test_the_widest_distilled_network_too_gives_the_same_logits(form: str) -> None:
    theirs, ours = filled(lambda: FORMS[form](48)), our_network(48)
    load_weights(ours, WeightFile(Path("w48"), converted(theirs.state_dict())[0], None))
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", SEVEN)
def test_every_network_that_a_project_has_is_converted_whole(form: str, width: int) -> None:
    with torch.device("meta"):  # names and shapes alone
        theirs = FORMS[form](width).state_dict()
    assert not find_misfits(our_shapes(width), converted(theirs)[0])


def test_a_single_neck_without_a_number_is_converted_too() -> None:
    name = "neck.increase_layers.2.0.conv1.weight"
    weights = {"backbone.conv1.weight": torch.zeros(1), name: torch.ones(1)}
    assert converted(weights)[0]["incre_modules.2.0.conv1.weight"] == 1


def test_our_own_and_timms_names_are_left_as_they_are() -> None:
    weights = our_shapes(18)
    same, project = converted(weights)
    assert project == "" and same.keys() == weights.keys()


def test_a_foreign_name_that_no_rule_knows_is_listed_and_not_skipped(tmp_path: Path) -> None:
    """Pitfall 27."""
    with torch.device("meta"):
        network, ours = MMPretrain(18, NUM_CLASSES), build_hrnet(ARCHS["hrnet_w18"], NUM_CLASSES)
    theirs = {f"module.{name}": torch.zeros(1) for name in network.state_dict()}
    theirs["module.backbone.extra.weight"] = torch.zeros(1)
    theirs["module.head.aux.weight"] = torch.zeros(1)
    torch.save({"state_dict": theirs}, tmp_path / "x.pth")
    file = read_weights(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"2 unexpected \(extra.weight, head.aux.weight\)"):
        load_weights(ours, file)


def test_two_names_that_would_become_one_are_refused_with_the_file(tmp_path: Path) -> None:
    both = {"conv1.weight": torch.zeros(1), "backbone.conv1.weight": torch.zeros(1)}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"both.pth: two of its weights would be conv1.weight"):
        read_weights(tmp_path / "both.pth")


def test_an_se_hrnet_is_refused_by_its_name(tmp_path: Path) -> None:
    arrays = {
        "conv_layer1_1.conv.weight": np.zeros(1, np.float32),
        "layer1.0.se.fc_squeeze.weight": np.zeros(1, np.float32),
    }
    path = tmp_path / "se.pdparams"
    path.write_bytes(pickle.dumps(arrays))
    with pytest.raises(ValueError, match="se.pdparams: these are weights of an SE-HRNet"):
        read_weights(path)


def test_safetensors_that_timm_wrote_give_timms_logits_by_path(tmp_path: Path) -> None:
    theirs = timm.create_model("hrnet_w18_small", num_classes=NUM_CLASSES)
    fill(theirs, seed=1)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = build_hrnet(ARCHS["hrnet_w18_small_v1"], NUM_CLASSES)
    load_weights(ours, read_weights(tmp_path / "model.safetensors"))
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_come_out_of_a_pickle_as_they_went_in(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1, 2], np.int64),
        "c": np.float16([1]),
        "text": np.array(["no number"]),
        "rest": {"a": 1},
    }
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(arrays, protocol=protocol))
    read = read_pdparams(path)
    assert list(read) == ["a", "b", "c"]
    assert all(np.array_equal(read[k], arrays[k]) for k in read)
    # as numpy 1 named the function
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    if protocol == 2:
        path.write_bytes(old)
        assert np.array_equal(read_pdparams(path)["a"], arrays["a"])


class Harm:
    """What runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.called = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.called


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    path, proof = tmp_path / "x.pdparams", tmp_path / "proof"
    for harm in (Harm(os.system, f"touch {proof}"), Harm(eval, f"open({str(proof)!r}, 'w')")):
        path.write_bytes(pickle.dumps({"a": harm}))
        with pytest.raises(ValueError, match=r"holds more .*asks for \w+\.(system|eval)"):
            read_weights(path)
    path.write_bytes(pickle.dumps({"a": Harm(np.dtype, "float32"), "b": Harm(list, ())}))
    with pytest.raises(ValueError, match="asks for builtins.list|asks for __builtin__.list"):
        read_weights(path)
    assert not proof.exists()


def test_damaged_and_other_pickles_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pdparams"
    whole = pickle.dumps({"a": np.zeros(100, np.float32)})
    cases = [
        (whole[:-200], "is damaged"),
        (b"<html>", "damaged"),
        (b"", "is damaged"),
        (pickle.dumps([1, 2]), "holds a list, not a mapping"),
        (pickle.dumps({"a": 1}), "holds no weights"),
    ]
    for content, expected in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=expected) as error:
            read_weights(path)
        assert "\n" not in str(error.value) and "x.pdparams" in str(error.value)
