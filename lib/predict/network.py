"""Weights with all that belongs to them: which network they are of, what its classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from lib.config import load_config
from lib.models.build import network_spec
from lib.models.guess import guess_arch, guess_spec
from lib.models.hrnet import HRNetSpec, build_hrnet
from lib.run_folder import CLASSES, CONFIG
from lib.weight_file import WeightFile, load_weights, read_weights

_NUM_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, on the CPU."""

    config: CfgNode
    network: nn.Module
    class_names: tuple[str, ...]
    lines: tuple[str, ...]  # what was loaded and where its parts come from, to say


def load_network(checkpoint: Path | str, cfg: Path | None, overrides: Sequence[str]) -> Loaded:
    """Return the network of a weight file, of a name of published weights, or of their address.

    Its configuration is `cfg`, else the config.yaml beside the weights; without either, the
    weights' shapes tell the network. `overrides` go on top. Raises FileNotFoundError, and
    ValueError where the file holds no weights, fits no network, or has another number of classes
    than is said.
    """
    file = read_weights(checkpoint)
    beside = file.path.with_name(CONFIG)
    path = cfg or (beside if beside.is_file() else None)
    config = load_config(path, overrides)
    if path is None:
        spec, name = _guess(file)
        source = "by the weights' shapes"
    else:
        spec, name, source = network_spec(config), config.MODEL.NAME, f"by {path}"
    _check_num_classes(file, config, source)
    network = build_hrnet(spec, file.num_classes)
    loaded = load_weights(network, file)
    names, remark = _class_names(file)
    return Loaded(config, network.eval(), names, (f"network {name} ({source}), {loaded}", *remark))


def _guess(file: WeightFile) -> tuple[HRNetSpec, str]:
    """Return the network that the weights are of, and its name."""
    spec = guess_spec(file.weights)
    if spec is None:
        raise ValueError(
            f"{file.path} has not the names of an HRNet's weights: is it of another network?"
        )
    return spec, guess_arch(file.weights) or "of no published form"


def _check_num_classes(file: WeightFile, config: CfgNode, source: str) -> None:
    """Raise ValueError where what stands beside the weights is of another number of classes."""
    num = file.num_classes
    if config.MODEL.NUM_CLASSES not in (0, num):
        raise ValueError(
            f"{file.path} has {num} classes, and MODEL.NUM_CLASSES ({source}) is "
            f"{config.MODEL.NUM_CLASSES}: is it the yaml of these weights?"
        )
    beside = file.path.with_name(CLASSES)
    if file.class_names is None and beside.is_file():
        raise ValueError(
            f"{file.path} has {num} classes, and {beside} names another number: put the one of "
            "these weights there, or take it away"
        )
    if file.class_names is not None and len(file.class_names) != num:
        raise ValueError(
            f"{file.path} has {num} classes and {len(file.class_names)} names for them: it is "
            "damaged, or was put together of two files"
        )


def _class_names(file: WeightFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes' names, and a line on them where they are no class names of the file."""
    num = file.num_classes
    numbers = tuple(f"class {number}" for number in range(num))
    if file.class_names is not None:
        return file.class_names, ()
    if num != _NUM_IMAGENET_CLASSES:
        return numbers, (f"[Warning] no {CLASSES} beside the weights: classes are numbers",)
    try:
        from torchvision.models import ResNet18_Weights  # here: needed for its list of names only
    except ImportError as error:
        return numbers, (
            f"[Warning] classes are numbers: the names of ImageNet's come with torchvision "
            f"({error}): pip install torchvision",
        )
    return tuple(ResNet18_Weights.DEFAULT.meta["categories"]), ("classes: ImageNet's",)
