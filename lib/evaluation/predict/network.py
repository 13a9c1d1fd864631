"""The names that a network's classes are called by in a prediction."""

from __future__ import annotations

from lib.models.resolver import Resolved
from lib.runtime.run_folder import CLASSES

_NUM_IMAGENET_CLASSES = 1000


def class_names(resolved: Resolved) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes' names, and a line on them where they are no class names of the file."""
    num = resolved.file.num_classes
    numbers = tuple(f"class {number}" for number in range(num))
    if resolved.class_names is not None:
        return resolved.class_names, ()
    if num != _NUM_IMAGENET_CLASSES:
        remark = f"[Warning] no class names in the weights, no {CLASSES} beside: they are numbers"
        return numbers, (remark,)
    try:
        from torchvision.models import ResNet18_Weights  # here: needed for its list of names only
    except ImportError as error:
        return numbers, (
            f"[Warning] classes are numbers: the names of ImageNet's come with torchvision "
            f"({error}): pip install torchvision",
        )
    return tuple(ResNet18_Weights.DEFAULT.meta["categories"]), ("classes: ImageNet's",)
