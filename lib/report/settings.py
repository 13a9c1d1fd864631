"""A run's settings in words: its network, what its training loss is of, its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from yacs.config import CfgNode

from lib.config.load import load_config
from lib.config.schedules import Schedule, run_schedule
from lib.models.build import network_spec
from lib.models.hrnet import ARCHS
from lib.report.run_files import RunFiles
from lib.runtime.run_folder import CONFIG

_LOSSES = {"cross_entropy": "cross-entropy", "bce": "binary cross-entropy"}


@dataclass(frozen=True)
class Settings:
    """What a page says of the configuration."""

    network: str = ""
    training_loss: str = ""  # what it is and what it is taken on
    schedule: Schedule | None = None


def settings_of(run: RunFiles) -> Settings:
    """Return a run's settings; empty ones where its config.yaml is not one any more."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keys without meaning: the run has named them
            config = load_config(run.folder / CONFIG)
        schedule = run_schedule(config, _num_cards(run.result, run.environment))
        return Settings(_network(config), _training_loss(config), schedule)
    except (ValueError, OSError):
        return Settings()


def _network(config: CfgNode) -> str:
    """Return the published network's name, whichever way the yaml describes it."""
    spec = network_spec(config)
    return next((name for name, known in ARCHS.items() if known == spec), config.MODEL.NAME)


def _num_cards(*records: Mapping[str, object]) -> int:
    """Return how many cards the run had, as its records say; 1 where they are silent."""
    said = [str(record.get("cards", "")) for record in records]
    return next((int(text) for text in said if text.isdecimal() and int(text)), 1)


def _training_loss(config: CfgNode) -> str:
    train, aug, distill = config.TRAIN, config.AUG, config.DISTILL
    images = ["cropped at random"]
    images += ["mirrored"] if aug.HFLIP else []
    images += [f"changed by {aug.AUTO}"] if aug.AUTO != "no" else []
    images += ["erased in part"] if aug.ERASE else []
    mixes = [name for name, alpha in (("mixup", aug.MIXUP), ("cutmix", aug.CUTMIX)) if alpha]
    images += [f"mixed ({' and '.join(mixes)})"] if mixes else []
    if distill.TEACHER and distill.WEIGHT == 1:
        loss = "the distance from the teacher's answers"
    else:
        loss = _LOSSES.get(train.LOSS, train.LOSS)
        loss += f" with label smoothing {train.LABEL_SMOOTHING:g}" if train.LABEL_SMOOTHING else ""
        loss += ", weighted by class" if train.CLASS_WEIGHTS != "no" else ""
        loss += " and the distance from the teacher's answers" if distill.TEACHER else ""
    *others, last = images
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"{loss}, on images {listed}, while the weights change"
