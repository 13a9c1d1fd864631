"""Settings of a training run that nothing reads, since another one is not set."""

from __future__ import annotations

from yacs.config import CfgNode

from lib.config.check import value_at
from lib.config.defaults import default_config


def unused_settings(config: CfgNode) -> list[str]:
    """Return a remark for each kind of setting that is not as by default and has no effect.

    No error: yaml files share bases, which may hold what only some of them use.
    """
    train, aug = config.TRAIN, config.AUG
    mixes = aug.MIXUP > 0 or aug.CUTMIX > 0
    kinds = (
        (("DISTILL.LOSS", "DISTILL.TEMPERATURE", "DISTILL.WEIGHT"), config.DISTILL.TEACHER,
         "DISTILL.TEACHER names one"),
        (("AUG.MIX_PROB",), mixes, "AUG.MIXUP or AUG.CUTMIX is above 0"),
        (("AUG.MIX_SWITCH_PROB",), aug.MIXUP > 0 and aug.CUTMIX > 0,
         "AUG.MIXUP and AUG.CUTMIX are both above 0"),
        (("AUG.RANDAUGMENT",), aug.AUTO == "randaugment", "AUG.AUTO is randaugment"),
        (("TRAIN.LR_STEP", "TRAIN.LR_FACTOR"), train.SCHEDULE == "step", "TRAIN.SCHEDULE is step"),
        (("TRAIN.LR_POWER",), train.SCHEDULE == "poly", "TRAIN.SCHEDULE is poly"),
        (("TRAIN.LR_MIN",), train.SCHEDULE != "step", "TRAIN.SCHEDULE is cosine or poly"),
        (("TRAIN.WARMUP_FACTOR",), train.WARMUP_EPOCHS > 0, "TRAIN.WARMUP_EPOCHS is above 0"),
        (("DATASET.SPLIT_SEED",), config.DATASET.VAL_SHARE > 0, "DATASET.VAL_SHARE is above 0"),
    )  # fmt: skip
    defaults, remarks = default_config(), []
    for keys, is_read, condition in kinds:
        idle = [k for k in keys if value_at(config, k) != value_at(defaults, k)]
        if idle and not is_read:
            named = ", ".join(f"{key} {value_at(config, key)}" for key in idle)
            remarks.append(f"{named}: no effect unless {condition}")
    return remarks
