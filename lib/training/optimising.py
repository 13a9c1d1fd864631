"""How a run optimises, from its configuration: the rate, what trains, the averaged weights."""

from __future__ import annotations

from torch import nn
from yacs.config import CfgNode

from lib.models.folding import checkpoint_activations
from lib.models.layer_groups import freeze
from lib.models.padded import pad_widths
from lib.runtime.distributed import Processes, synchronised_norms
from lib.runtime.text import counted
from lib.training.optim import GroupRules, OptimizerOptions
from lib.training.start import StartingPoint


def optimizer_options(config: CfgNode) -> OptimizerOptions:
    """Return the optimizer's settings."""
    train = config.TRAIN
    rules = GroupRules(train.WD_NORM_BIAS, train.HEAD_LR_FACTOR, train.LAYER_DECAY)
    return OptimizerOptions(train.OPTIMIZER, train.WD, train.MOMENTUM, train.NESTEROV, rules)


def make_trainable(network: nn.Module, config: CfgNode, processes: Processes) -> nn.Module:
    """Return the network as it trains: frozen parts, recomputed maps, padded widths, joint norms.

    Raises ValueError for a part that there is not, or norms that cannot be synchronised.
    """
    freeze(network, config.MODEL.FREEZE)
    if config.TRAIN.CHECKPOINT_ACTIVATIONS:
        checkpoint_activations(network)
    pad_widths(network, config.TRAIN.WIDTH_MULTIPLE)
    return synchronised_norms(network, processes) if config.TRAIN.SYNC_BN else network


def optimising_remarks(config: CfgNode, start: StartingPoint) -> list[str]:
    """Return what may not be meant.

    Frozen random parts, a rate that never falls, an average begun or lost in a resume.
    """
    remarks, train = [], config.TRAIN
    if train.WARMUP_EPOCHS and train.WARMUP_EPOCHS >= train.END_EPOCH:
        remarks.append(
            f"TRAIN.WARMUP_EPOCHS {train.WARMUP_EPOCHS:g} is all of the "
            f"{counted(train.END_EPOCH, 'epoch')}: the rate only rises, and TRAIN.SCHEDULE "
            f"{train.SCHEDULE} never begins; give less"
        )
    if config.MODEL.FREEZE and start.weights is None:
        remarks.append("MODEL.FREEZE keeps random weights as they are: give --pretrained")
    if start.state is not None:
        is_saved, is_wanted = "state_dict_ema" in start.state, config.TRAIN.EMA_DECAY > 0
        if is_wanted and not is_saved:
            remarks.append("the checkpoint has no averaged weights: they begin with its last ones")
        if is_saved and not is_wanted:
            remarks.append("the checkpoint's averaged weights are dropped: TRAIN.EMA_DECAY is 0")
    return remarks


def optimising_line(config: CfgNode) -> str:
    """Return what of a run's optimising is not as by default, in words; empty where nothing is."""
    train = config.TRAIN
    said = [
        (config.MODEL.FREEZE, f"frozen: {', '.join(config.MODEL.FREEZE)}"),
        (not train.WD_NORM_BIAS, "no weight decay on norms and biases"),
        (train.HEAD_LR_FACTOR != 1, f"the classifier's rate x {train.HEAD_LR_FACTOR:g}"),
        (train.LAYER_DECAY != 1, f"each earlier part's rate x {train.LAYER_DECAY:g}"),
        (train.CLIP_GRAD_NORM, f"gradients up to norm {train.CLIP_GRAD_NORM:g}"),
        (train.EMA_DECAY, f"weights averaged with decay {train.EMA_DECAY:g}"),
        (train.SYNC_BN, "batch norms over all cards"),
        (
            train.EARLY_STOP,
            f"early stop after {counted(train.EARLY_STOP, 'epoch')} without a better top-1",
        ),
    ]
    words = "; ".join(text for applies, text in said if applies)
    return f"optimising: {words}" if words else ""
