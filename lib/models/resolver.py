"""From a weight file to all that belongs to it: network, input recipe and class names.

Every program that evaluates, predicts or exports asks here, so that all of them do the same with
the same weights. In order, the recipe is that of

1. keys on the command line (MODEL.IMAGE_SIZE, TEST.IMAGE_SIZE, TEST.RESIZE, DATASET.ORIENTATION),
2. the record that the weight file carries,
3. the config.yaml beside it, which a run leaves there,
4. the publisher, of published weights,
5. nothing: the usual recipe is assumed, and said to be.

An experiment yaml that is given (--cfg) may choose another evaluation by its TEST keys; where it
contradicts what is recorded it is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from lib.config.keys import value_at
from lib.config.load import load_config
from lib.config.overrides import repeats
from lib.config.recipe import (
    INPUT_KEYS,
    SIZE_KEYS,
    TEST_SIZE_KEYS,
    Recipe,
    eval_recipe,
    eval_resize,
)
from lib.models.build import network_spec
from lib.models.guess import arch_name, guess_spec
from lib.models.hrnet import HRNetSpec, build_hrnet
from lib.models.weights.facts import ARCH, CLASS_NAMES, FLIP, RECIPE
from lib.models.weights.find import published
from lib.models.weights.load import WeightFile, load_weights, read_weights
from lib.models.weights.registry import Entry
from lib.runtime.run_folder import CLASSES, CONFIG


@dataclass(frozen=True)
class Resolved:
    """A weight file, and how it is used."""

    file: WeightFile
    config: CfgNode
    spec: HRNetSpec
    arch: str  # a row of ARCHS where the network is one, else the configuration's name for it
    recipe: Recipe
    lines: tuple[str, ...]  # where network, recipe and class names come from, to say

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes in the order of the outputs; None where nothing names them."""
        return self.file.class_names

    def build(self) -> tuple[nn.Module, str]:
        """Return the network with its weights, on the CPU, and a line that says what was loaded.

        Raises ValueError where they do not fit.
        """
        network = build_hrnet(self.spec, self.file.num_classes)
        loaded = load_weights(network, self.file)
        return network.eval(), loaded


@dataclass(frozen=True)
class _Record:
    """What is known of the input of weights, and who says so."""

    recipe: Recipe
    source: str
    flip: bool = False  # evaluated with mirror images
    binds: bool = True  # False for published weights: a yaml may prepare pictures as it likes


def resolve(
    weights: Path | str, *, cfg: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved:
    """Return weights with all that belongs to them.

    Args:
        weights: a file, a run folder, a name of published weights, or their address.
        cfg: an experiment yaml; None: the config.yaml beside the weights, else the defaults.
        overrides: keys and values that go on top.

    Raises:
        FileNotFoundError: no such file, and no weights of that name.
        ValueError: the file holds no HRNet, is of another network or number of classes than is
            said, or `cfg` contradicts what is recorded.
    """
    file = read_weights(weights)
    beside = _config_beside(file)
    record = _record(file, beside, published(weights))
    remarks: list[str] = []  # what else the file holds is said when it is loaded
    if cfg is None and beside is not None and (fault := _misfit(beside, file)):
        if not file.facts:
            raise ValueError(f"{fault}: take it away, or give the yaml of these weights by --cfg")
        remarks.append(f"[Warning] {fault}, and is not used")
        beside = None
    if "MODEL.NAME" in overrides[::2]:  # the yaml beside is of the weights' own network
        beside = None
    base = cfg or beside
    recorded = _keys_of(record, overrides) if record and base is None else []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = load_config(base, [*recorded, *overrides])
    said = (*repeats(overrides), *(warning.message for warning in caught))
    remarks += [f"[Warning] {remark}" for remark in said]
    if cfg is not None and record is not None:
        _check_agreement(cfg, overrides, record)
    spec, arch, source = _network(file, config, base, overrides)
    _check_num_classes(file, config, source)
    recipe, recipe_line = _recipe(config, record, cfg=cfg, overrides=overrides)
    lines = (*remarks, f"network {arch} ({source})", recipe_line, _classes_line(file))
    return Resolved(file, config, spec, arch, recipe, lines)


def facts_of(config: CfgNode, class_names: Sequence[str]) -> Mapping[str, object]:
    """Return the record that a run's weight files carry."""
    spec = network_spec(config)
    return {
        ARCH: arch_name(spec) or config.MODEL.NAME,
        RECIPE: eval_recipe(config).as_json(),
        CLASS_NAMES: list(class_names),
        FLIP: True if config.TEST.FLIP else None,
    }


def _config_beside(file: WeightFile) -> Path | None:
    beside = file.path.with_name(CONFIG)
    return beside if beside.is_file() else None


def _record(file: WeightFile, beside: Path | None, entry: Entry | None) -> _Record | None:
    """Return what is recorded of the input, by the first that says anything."""
    if RECIPE in file.facts:
        flip = bool(file.facts.get(FLIP))
        return _Record(_recorded_recipe(file), "the record in the weights", flip)
    if beside is not None:
        config = _quietly_loaded(beside)
        return _Record(eval_recipe(config), str(beside), config.TEST.FLIP)
    if entry is not None:
        return _Record(entry.recipe, f"as {entry.source} publishes {entry.name}", binds=False)
    return None


def _recorded_recipe(file: WeightFile) -> Recipe:
    return Recipe.from_json(file.facts[RECIPE], where=f"{file.path}: its record")


def _misfit(beside: Path, file: WeightFile) -> str:
    """Return why the config.yaml beside weights is not theirs; '' where it may be."""
    config = _quietly_loaded(beside)
    guessed, spec = guess_spec(file.weights), network_spec(config)
    if guessed not in (None, spec):
        ours, theirs = (arch_name(found) or "another network" for found in (spec, guessed))
        return f"{beside} is of {ours}, and the weights beside it are of {theirs}"
    if RECIPE in file.facts:
        differences = eval_recipe(config).differences(_recorded_recipe(file))
        if differences:
            return (
                f"{beside} says otherwise than the record in the weights ({', '.join(differences)})"
            )
    return ""


def _check_agreement(cfg: Path, overrides: Sequence[str], record: _Record) -> None:
    """Raise ValueError where a yaml contradicts the record and no key says that it is meant."""
    config = _quietly_loaded(cfg)
    if not record.binds:
        return
    chosen = set(overrides[::2]) & set(INPUT_KEYS)
    chosen |= {key for key in TEST_SIZE_KEYS if value_at(config, key)}
    asked = eval_recipe(config)
    theirs = replace(
        asked,
        resize=record.recipe.resize,
        crop=record.recipe.crop,
        orientation=record.recipe.orientation,
    )
    differences = [] if chosen else list(asked.differences(theirs))
    if record.flip and not config.TEST.FLIP and "TEST.FLIP" not in overrides[::2]:
        differences.append("TEST.FLIP false for true")
    if differences:
        raise ValueError(
            f"--cfg {cfg} contradicts {record.source} ({', '.join(differences)}): leave --cfg out, "
            f"or say what you want with {' '.join(_keys_of(record))}"
        )


def _keys_of(record: _Record, overrides: Sequence[str] = ()) -> list[str]:
    """Return the configuration's keys and values for what is recorded.

    The short side is left out where `overrides` ask for another size: it has the usual one then.
    """
    recipe = record.recipe
    keys = ["MODEL.IMAGE_SIZE", f"[{recipe.crop},{recipe.crop}]"]
    if recipe.resize != eval_resize(recipe.crop) and not set(overrides[::2]) & set(SIZE_KEYS):
        keys += ["TEST.RESIZE", str(recipe.resize)]
    if recipe.orientation != Recipe.orientation:
        keys += ["DATASET.ORIENTATION", recipe.orientation]
    return [*keys, "TEST.FLIP", "true"] if record.flip else keys


def _quietly_loaded(path: Path) -> CfgNode:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are told where the configuration is used
        return load_config(path)


def _network(
    file: WeightFile, config: CfgNode, base: Path | None, overrides: Sequence[str]
) -> tuple[HRNetSpec, str, str]:
    """Return the network, its name, and who says so."""
    guessed = guess_spec(file.weights)
    if base is None and "MODEL.NAME" not in overrides[::2]:
        if guessed is None:
            raise ValueError(
                f"{file.path} has not the names of an HRNet's weights: is it of another network?"
            )
        return guessed, arch_name(guessed) or "of no published form", "by the weights' shapes"
    spec = network_spec(config)
    name, source = arch_name(spec) or config.MODEL.NAME, base or "MODEL.NAME"
    if guessed not in (None, spec):
        theirs = arch_name(guessed) or "a network of no published form"
        raise ValueError(
            f"{source} is of {name}, and the weights in {file.path} are of {theirs}: leave it "
            "out, or give the yaml of these weights"
        )
    return spec, name, f"by {source}"


def _check_num_classes(file: WeightFile, config: CfgNode, source: str) -> None:
    """Raise ValueError where what is said of the classes is of another number of them."""
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


def _recipe(
    config: CfgNode, record: _Record | None, *, cfg: Path | None, overrides: Sequence[str]
) -> tuple[Recipe, str]:
    """Return the recipe to use, and a line on where it comes from."""
    asked = eval_recipe(config)
    chosen = [key for key in INPUT_KEYS if key in overrides[::2]]
    if record is None:
        if chosen or cfg is not None:
            return asked, f"input {asked} (by {' and '.join(chosen) or f'--cfg {cfg}'})"
        return asked, (
            f"[Warning] input {asked}: assumed, since nothing usable in the weights or beside "
            "them says what they were trained at; MODEL.IMAGE_SIZE [SIDE,SIDE] says it"
        )
    if cfg is not None and not record.binds:
        return asked, f"input {asked} (by --cfg {cfg}; {record.source}: {record.recipe})"
    # Sizes and orientation are the configuration's, which has the record's or what is asked for.
    recipe = replace(
        record.recipe, resize=asked.resize, crop=asked.crop, orientation=asked.orientation
    )
    if recipe.channels != "RGB":
        raise ValueError(
            f"{record.source} says that these weights take {recipe.channels} pictures: only RGB "
            "is computed here"
        )
    differences = recipe.differences(record.recipe)
    if not differences:
        return recipe, f"input {recipe} ({record.source})"
    by = " and ".join(chosen) or f"--cfg {cfg}"
    return recipe, f"input {recipe} (by {by}; {record.source}: {', '.join(differences)})"


def _classes_line(file: WeightFile) -> str:
    if file.class_names is None:
        return f"classes {file.num_classes}; nothing names them"
    return f"classes {file.num_classes}, named by {file.names_source}"
