"""The configuration: yacs defaults, yaml files with `_BASE_`, and KEY VALUE overrides.

`load_config` gives a fresh, frozen CfgNode each call, so that two runs in one process never see
each other's settings.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode

from lib.config.check import check, leaves
from lib.config.defaults import LEGACY_KEYS, OFFICIAL_NAME, default_config


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """Return a frozen configuration: defaults, then the yaml file and its bases, then overrides.

    `overrides` alternates keys and values, `["TRAIN.LR", "0.1"]`; values are read as yaml, those
    of keys that hold a text are taken as they stand.
    Raises ValueError (unknown key, wrong type or value, odd overrides, broken yaml) and
    FileNotFoundError (no such yaml), each in one line.
    """
    defaults = default_config()
    config = defaults.clone()
    ignored: list[str] = []
    if path is not None:
        for layer_path, layer in _layers(Path(path), seen=()):
            ignored += _drop_official_resume(layer)
            ignored += _merge(config, layer, defaults=defaults, source=str(layer_path))
    overriding = _tree_of(overrides, defaults)
    ignored += _merge(config, overriding, defaults=defaults, source="command line")
    if ignored:
        names = ", ".join(dict.fromkeys(ignored))
        warnings.warn(
            f"{path or 'command line'}: keys without meaning here are ignored: {names}",
            stacklevel=2,
        )
    check(config)
    config.freeze()
    return config


def _layers(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Path, dict[str, object]]]:
    """Yield (path, mapping) of the yaml file, its `_BASE_` first."""
    if path.resolve() in seen:
        raise ValueError(f"{path}: _BASE_ leads back to this file")
    if not path.is_file():
        raise FileNotFoundError(f"no such experiment file: {path}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not readable yaml: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a mapping of keys is needed, not a {type(tree).__name__}")
    base = tree.pop("_BASE_", None)
    if base is not None:
        if not isinstance(base, str):
            raise ValueError(f"{path}: _BASE_ must be the path of one yaml file, not {base!r}")
        yield from _layers(path.parent / base, (*seen, path.resolve()))
    yield path, tree


def _drop_official_resume(tree: dict[str, object]) -> list[str]:
    """Drop RESUME: true from an official-form yaml; return what to say about it.

    Eight of the nine official files say so, and a second run silently continued the first. Here
    continuing is asked for by name.
    """
    model, train = tree.get("MODEL"), tree.get("TRAIN")
    is_official = isinstance(model, dict) and model.get("NAME") == OFFICIAL_NAME
    if is_official and isinstance(train, dict) and train.pop("RESUME", False):
        return ["TRAIN.RESUME (ask for it with --auto_resume)"]
    return []


def _tree_of(overrides: Sequence[str], defaults: CfgNode) -> dict[str, object]:
    if len(overrides) % 2:
        raise ValueError(f"overrides come in pairs KEY VALUE; {overrides[-1]!r} has no partner")
    tree: dict[str, object] = {}
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ValueError(f"override {key}: {parent} was given a value before")
            node = child
        try:
            node[leaf] = text if _is_text(defaults, key) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"override {key}: {text!r} is not a yaml value") from None
    return tree


def _is_text(defaults: CfgNode, path: str) -> bool:
    # The path of a file may hold what yaml gives a meaning to: ` #`, `: `, brackets, digits alone.
    node: object = defaults
    for part in path.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return isinstance(node, str)


def _merge(
    config: CfgNode,
    tree: Mapping[str, object],
    *,
    defaults: CfgNode,
    source: str,
    prefix: str = "",
) -> list[str]:
    """Merge `tree` into `config` in place; return the legacy keys that were left out."""
    ignored = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in LEGACY_KEYS.split():
            ignored.append(path)
        elif key not in config:
            raise ValueError(f"{source}: unknown key {path}{_suggestion(path)}")
        elif isinstance(config[key], CfgNode):
            branch = {} if value is None else value
            if not isinstance(branch, Mapping):
                raise ValueError(f"{source}: {path} holds keys of its own, not the value {value!r}")
            if path == "MODEL.EXTRA":
                config[key] = _free_form(branch, where=f"{source}: {path}")
            else:
                ignored += _merge(
                    config[key], branch, defaults=defaults[key], source=source, prefix=f"{path}."
                )
        else:
            config[key] = _coerced(value, defaults[key], where=f"{source}: {path}")
    return ignored


def _free_form(tree: Mapping[str, object], *, where: str) -> CfgNode:
    try:
        return CfgNode(dict(tree), new_allowed=True)
    except AssertionError as error:  # how yacs refuses a value, such as a date
        raise ValueError(f"{where}: {error}") from None


def _suggestion(path: str) -> str:
    known = [name for name, _ in leaves(default_config())]
    # A key on the wrong level (LR for TRAIN.LR) is the commonest slip, so compare last names too.
    same_leaf = [name for name in known if name.split(".")[-1] == path.split(".")[-1].upper()]
    nearest = same_leaf or difflib.get_close_matches(path.upper(), known, n=1, cutoff=0.4)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known keys: {', '.join(known)}"


def _coerced(value: object, default: object, *, where: str) -> object:
    """Return `value` with the default's type: whole numbers are rates too, and so is '1e-4'."""
    wanted = type(default)
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if wanted is str and value is None:
        return ""
    if isinstance(default, list):
        item_default = default[0] if default else ""  # those that are empty hold names
        if isinstance(value, (list, tuple)):
            return [_coerced(item, item_default, where=where) for item in value]
        if type(value) is type(item_default):
            return [value]
    if type(value) is not wanted:
        raise ValueError(
            f"{where}: {value!r} is a {type(value).__name__}, {wanted.__name__} is needed"
        )
    return value


def default_run_folder(config: CfgNode, config_path: Path | None) -> Path:
    """Return OUTPUT_DIR/<DATASET.DATASET>/<yaml's name>, relative to the working directory."""
    name = config_path.name.removesuffix(".yaml") if config_path else config.MODEL.NAME
    return Path(config.OUTPUT_DIR) / config.DATASET.DATASET / name
