"""Saving so that a kill costs nothing, and loading weights in every usual form."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lib.config.load import load_config
from lib.models.hrnet import HRNetSpec, StageSpec, build_hrnet
from lib.models.weights.load import Head, WeightFile, load_weights, read_weights
from lib.models.weights.torch_file import save_atomically
from lib.runtime.files import write_atomically
from lib.training import checkpoint
from lib.training.checkpoint import load_training_state
from lib.training.optim import check_state_sizes


def tiny_network(num_classes: int = 3) -> nn.Module:
    stages = [StageSpec(1, "BOTTLENECK", (1,), (4,))]
    stages += [StageSpec(1, "BASIC", (1,) * n, tuple(4 << k for k in range(n))) for n in (2, 3, 4)]
    return build_hrnet(HRNetSpec(*stages), num_classes)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def training_state(weights: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """A checkpoint.pth.tar of a run that has done nothing yet."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    return {
        "format": checkpoint.FORMAT,
        "state_dict": dict(weights),
        "optimizer": optimizer.state_dict(),
        "optimizer_name": "sgd",
        "precision": {},
        "position": asdict(checkpoint.Position()),
        "rng": [checkpoint.rng_states(torch.device("cpu"))],
        "seed": 0,
        "sums": [0, 0, 0, 0, 0],
        "best_accuracy": -1.0,
        "report": {},
        "num_images": 2,
        "class_names": ["a", "b"],
        "class_to_idx": {"a": 0, "b": 1},
        "config": load_config().dump(),
    }


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return tiny_network().state_dict()


def test_a_kill_during_a_save_leaves_the_previous_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 16: the new content is renamed into place only once it is whole on the disk."""
    path = tmp_path / "checkpoint.pth.tar"
    save_atomically({"epoch": 1}, path)
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    save_atomically({"epoch": 2}, path)
    assert order == ["fsync", "rename", "fsync"]

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"epoch": 3}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 2}


def test_a_full_disk_leaves_the_previous_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    write_atomically(b"old", path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_atomically(b"new", path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["checkpoint.pth.tar"]


@pytest.mark.parametrize(
    "form", ["bare", "state_dict", "model", "ema first", "torchvision's ema", "module.", "compiled"]
)
def test_weights_are_read_from_every_usual_form(
    form: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Pitfall 28."""
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    network = tiny_network()
    network.load_state_dict(weights)
    averaged = AveragedModel(network).state_dict()
    content = {
        "bare": weights,
        "state_dict": {"state_dict": weights, "epoch": 3},
        "model": {"model": weights, "optimizer": {}},
        "ema first": {"state_dict": other, "state_dict_ema": weights},
        "torchvision's ema": {"model": other, "model_ema": averaged},
        "module.": {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
        "compiled": {f"module._orig_mod.{name}": value for name, value in weights.items()},
    }[form]
    read = read_weights(saved(content, tmp_path / "x.pth")).weights
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_safetensors_are_read(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Pitfall 28."""
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    read = read_weights(path)
    assert all(torch.equal(read.weights[name], weights[name]) for name in weights)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(path)


def test_class_names_come_from_the_file_or_from_the_list_beside_it(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = saved({"state_dict": weights, "class_names": ["a", "b", "c"]}, tmp_path / "x.pth")
    assert read_weights(path).class_names == ("a", "b", "c")
    bare = saved(weights, tmp_path / "bare.pth")
    assert read_weights(bare).class_names is None
    (tmp_path / "classes.json").write_text(json.dumps({"z": 1, "y": 0, "x": 2}))
    assert read_weights(bare).class_names == ("y", "z", "x")
    (tmp_path / "classes.json").write_text(json.dumps({"z": 1, "y": 0}))
    assert read_weights(bare).class_names is None


def test_weights_that_do_not_fit_name_what_is_missing_and_unexpected(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Pitfall 27."""
    broken = dict(weights)
    broken["extra.weight"] = broken.pop("conv1.weight")
    with pytest.raises(ValueError) as error:
        load_weights(tiny_network(), WeightFile(tmp_path / "x.pth", broken, None))
    message = str(error.value)
    assert "1 missing (conv1.weight)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "\n" not in message


def test_a_head_of_another_size_is_reset_only_on_purpose_and_said(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Pitfall 27."""
    file = WeightFile(tmp_path / "x.pth", weights, None)
    network = tiny_network(5)
    with pytest.raises(ValueError, match="MODEL.NUM_CLASSES"):
        load_weights(network, file)
    fresh = network.classifier.weight.clone()
    said = load_weights(network, file, head=Head.NEW_IF_OTHER)
    assert "classifier of 3 classes is replaced by a new one of 5" in said
    assert torch.equal(network.classifier.weight, fresh)
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])
    assert "replaced" not in load_weights(tiny_network(3), file, head=Head.NEW_IF_OTHER)
    other = tiny_network(3)  # as many classes, but other ones
    fresh = other.classifier.weight.clone()
    assert "is replaced by a new one of 3" in load_weights(other, file, head=Head.NEW)
    assert torch.equal(other.classifier.weight, fresh)


def test_files_that_hold_no_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    class Foreign:
        pass

    Foreign.__module__, Foreign.__qualname__ = "builtins", "object"
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04 cut short")
    text = tmp_path / "text.pth"
    text.write_text("<html>not found</html>")
    cases = [
        (damaged, "damaged"),
        (text, "damaged|not opened"),
        (saved([1, 2], tmp_path / "list.pth"), "not a mapping"),
        (saved({"a": 1}, tmp_path / "none.pth"), "no weights"),
        (saved({"code": os.system}, tmp_path / "code.pth"), "foreign code"),
    ]
    for path, expected in cases:
        with pytest.raises(ValueError, match=expected) as error:
            read_weights(path)
        assert "\n" not in str(error.value) and path.name in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        read_weights(tmp_path / "absent.pth")


def test_weights_alone_are_no_training_state(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Pitfall 3: --resume and --pretrained are different things, and the message says which."""
    with pytest.raises(ValueError, match="--pretrained"):
        load_training_state(saved(weights, tmp_path / "x.pth"))


def test_to_cpu_copies_so_that_later_steps_do_not_reach_a_state_being_written() -> None:
    parameter = nn.Parameter(torch.ones(3))
    state = checkpoint.to_cpu({"a": [parameter, (1, "x", None)]})
    with torch.no_grad():
        parameter.fill_(5.0)
    copied, rest = state["a"]
    assert torch.equal(copied, torch.ones(3)) and not copied.requires_grad
    assert rest == (1, "x", None)


def test_random_generators_survive_a_round_trip_through_a_file(tmp_path: Path) -> None:
    """Pitfall 15."""
    device = torch.device("cpu")
    path = saved(checkpoint.rng_states(device), tmp_path / "rng.pth")
    expected = (random.random(), torch.rand(3))
    checkpoint.restore_rng_states(torch.load(path, weights_only=True), device)
    assert random.random() == expected[0]
    assert torch.equal(torch.rand(3), expected[1])


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("format", "1", "no training state"),
        ("state_dict", {"a": 5}, "state_dict.a is 5, and a Tensor is needed"),
        ("optimizer", 5, "optimizer is 5"),
        ("optimizer", {"state": {}, "param_groups": [5]}, "optimizer.param_groups[0] is 5"),
        ("optimizer", {"state": {"x": {}}, "param_groups": []}, "optimizer.state: it is 'x'"),
        ("optimizer", {"state": {0: 5}, "param_groups": []}, "optimizer.state[0]: it is 5"),
        ("optimizer", {"state": {0: {"m": "x"}}, "param_groups": []}, "state[0]: m is 'x'"),
        ("position", {"epoch": 0}, "position has no 'step'"),
        ("position", dict.fromkeys(("epoch", "step", "num_steps", "images_per_step"), -1), "-1"),
        ("rng", [5], "rng[0] is 5"),
        ("rng", [{"python": "x", "torch": torch.ones(1), "device": None}], "rng[0].python is 'x'"),
        ("rng", [{"python": (3, (1,), None), "torch": 5, "device": None}], "rng[0].torch is 5"),
        ("seed", 2**64, "seed is 18446744073709551616"),
        ("sums", "x", "sums is 'x'"),
        ("report", [], "report is []"),
        ("report", {"x": torch.ones(1)}, "not JSON serializable"),
        ("report", {"train_loss": "\x1b[31m"}, "report.train_loss is '"),
        ("config", 5, "config is 5"),
        ("config", "{", "config is no yaml"),
        ("config", "[" * 5000, "config is no yaml"),
        ("config", "MODEL: 5", "MODEL is 5"),
        ("config", "a: &a [*a]", "config is no yaml (line 1: *a stands"),
        ("class_names", ["a", 5], "class_names[1] is 5"),
        ("state_dict_ema", 5, "state_dict_ema is 5"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused_in_one_line(
    key: str, value: object, expected: str, tmp_path: Path
) -> None:
    """Fault R6: before anything of it is used."""
    path = saved(training_state({}), tmp_path / "x.pth.tar")
    assert load_training_state(path)["seed"] == 0
    with pytest.raises(ValueError) as error:
        load_training_state(saved(training_state({}) | {key: value}, path))
    said = str(error.value)
    assert expected in said and said.startswith(str(path)) and said.isprintable()


def test_what_a_library_refuses_of_a_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    """Fault R6: states of the right types that fit nothing."""
    states = checkpoint.rng_states(torch.device("cpu"))
    for broken in ({"python": (3, (1, 2), None)}, {"torch": torch.ones(3)}):
        with (
            pytest.raises(ValueError, match="x is damaged: its generators cannot be put back"),
            checkpoint.put_back("generators", Path("x")),
        ):
            checkpoint.restore_rng_states({**states, **broken}, torch.device("cpu"))
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    optimizer.state[parameter] = {"momentum_buffer": torch.ones(3)}
    with pytest.raises(ValueError, match=r"momentum_buffer has the shape \(3,\) for .* \(2,\)"):
        check_state_sizes(optimizer)
