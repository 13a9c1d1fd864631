"""The parts of an HRNet, from the pixels to the classes: which of them train, and how fast."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

CLASSIFIER = "classifier"
# The modules of each part, in the order in which an image passes them.
PARTS = {
    "stem": ("conv1", "bn1", "conv2", "bn2"),
    "layer1": ("layer1",),
    "stage2": ("transition1", "stage2"),
    "stage3": ("transition2", "stage3"),
    "stage4": ("transition3", "stage4"),
    "head": ("incre_modules", "downsamp_modules", "final_layer", CLASSIFIER),
}
_PART_OF = {module: part for part, modules in PARTS.items() for module in modules}
_OTHER_NAMES = {"stage1": "layer1"}
_BACKBONE = "backbone"  # all but the classifier
FREEZABLE = ("stem", "layer1", "stage1", "stage2", "stage3", "stage4", _BACKBONE)


def is_of_classifier(parameter_name: str) -> bool:
    """Tell whether a parameter of an HRNet is the classifier's."""
    return parameter_name.split(".")[0] == CLASSIFIER


def depth_below_head(parameter_name: str) -> int:
    """Return how many parts come after a parameter's own: 0 for the head, 5 for the stem.

    Raises KeyError for a name that no HRNet has.
    """
    order = list(PARTS)
    return len(order) - 1 - order.index(_PART_OF[parameter_name.split(".")[0]])


def freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Let the parts of `names` (those of FREEZABLE) no longer train.

    Their batch norms also have to stay as they are: put the network into training mode with
    `begin_training`. Raises ValueError for another name.
    """
    unknown = [name for name in names if name not in FREEZABLE]
    if unknown:
        raise ValueError(f"MODEL.FREEZE: {unknown[0]!r} is not one of {', '.join(FREEZABLE)}")
    frozen = {_OTHER_NAMES.get(name, name) for name in names}
    for name, parameter in network.named_parameters():
        is_backbone = _BACKBONE in frozen and not is_of_classifier(name)
        if is_backbone or _PART_OF[name.split(".")[0]] in frozen:
            parameter.requires_grad_(False)


def begin_training(model: nn.Module) -> None:
    """Put a model into training mode, all but its frozen batch norms.

    Those go on normalising with their averages, which do not move.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _trains(module):
            module.eval()


def _trains(module: nn.Module) -> bool:
    parameters = list(module.parameters(recurse=False))
    return not parameters or any(parameter.requires_grad for parameter in parameters)
