"""From a configuration to a network."""

from __future__ import annotations

import torch
from torch import nn
from yacs.config import CfgNode

from lib.config.keys import OFFICIAL_NAME
from lib.models.hrnet import HRNet, HRNetSpec, build_hrnet, find_spec
from lib.models.official import spec_from_official
from lib.models.wrappers import FlipAverage
from lib.runtime import device as devices


def network_spec(config: CfgNode) -> HRNetSpec:
    """Return the network that MODEL.NAME names, or that MODEL.EXTRA of an official yaml spells out.

    Raises ValueError for an unknown name (with the nearest), or an EXTRA that is no HRNet.
    """
    if config.MODEL.NAME == OFFICIAL_NAME:
        return spec_from_official(config.MODEL.EXTRA)
    if config.MODEL.EXTRA:
        raise ValueError(
            f"MODEL.EXTRA goes with MODEL.NAME {OFFICIAL_NAME}; {config.MODEL.NAME} is complete "
            "by its name: leave EXTRA out"
        )
    return find_spec(config.MODEL.NAME)


def build_model(config: CfgNode, num_classes: int) -> HRNet:
    """Return the configuration's network, freshly initialised, with `num_classes` outputs."""
    return build_hrnet(network_spec(config), num_classes)


def place(network: nn.Module, device: torch.device, memory_format: str = "auto") -> None:
    """Move a network to the device, in the layout that TRAIN.MEMORY_FORMAT says."""
    layout = devices.memory_format(device, memory_format)
    network.to(device, memory_format=layout)  # type: ignore[call-overload]


def wrap_for_eval(config: CfgNode, network: nn.Module) -> nn.Module:
    """Return the network as it is evaluated: with mirror images where TEST.FLIP says so."""
    return FlipAverage(network) if config.TEST.FLIP else network
