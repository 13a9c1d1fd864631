"""Which network is fine-tuned: that of the weights, of `--arch`, or of the run that goes on."""

from __future__ import annotations

from pathlib import Path

import yaml

from lib.models.guess import guess_arch
from lib.models.weights.find import published
from lib.models.weights.load import read_weights
from lib.models.weights.registry import lookup
from lib.training.checkpoint import load_training_state, saved_config


def network_settings(
    pretrained: str | None, arch: str | None, *, default_pretrained: str = ""
) -> list[str]:
    """Return the configuration's keys and values for what `--pretrained` and `--arch` say.

    Weights tell their network by their name, or by what is in their file. A network alone, with
    `pretrained` None, has the published weights of its name where the configuration's own,
    `default_pretrained`, are published ones of another. '' as `pretrained`: from scratch.
    Raises what `read_weights` raises.
    """
    settings = []
    if arch is None and pretrained:
        entry = published(pretrained)
        arch = entry.arch if entry else guess_arch(read_weights(pretrained).weights)
    elif arch is not None and pretrained is None:
        entry = lookup(default_pretrained)
        if entry is not None and entry.arch != arch:
            settings = ["MODEL.PRETRAINED", arch]
    return settings if arch is None else [*settings, "MODEL.NAME", arch]


def resumed_settings(checkpoint: Path) -> list[str]:
    """Return the network of the run that a checkpoint is of, and what it began with.

    Raises what `load_training_state` raises.
    """
    model = saved_config(load_training_state(checkpoint), checkpoint)["MODEL"]
    return [
        "MODEL.NAME", model["NAME"],
        "MODEL.EXTRA", yaml.safe_dump(model["EXTRA"]),
        "MODEL.PRETRAINED", model["PRETRAINED"],
    ]  # fmt: skip
