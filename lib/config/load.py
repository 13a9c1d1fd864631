"""The configuration: yacs defaults, yaml files with `_BASE_`, and KEY VALUE overrides.

`load_config` gives a fresh, frozen CfgNode each call, so that two runs in one process never see
each other's settings.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode

from lib.config.check import check, leaves
from lib.config.keys import LEGACY_KEYS, OFFICIAL_NAME, default_config
from lib.config.overrides import tree_of
from lib.config.yaml_text import NotYamlError, read_yaml
from lib.runtime.checked import shown
from lib.runtime.text import printable

_MAX_BYTES = 2**20  # of an experiment file; those of this repository have two thousand
_DECIMAL = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|inf|nan)", re.IGNORECASE)
_PLAIN_KEY = re.compile(r"[\w.]{1,80}", re.ASCII)


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
    overriding = tree_of(overrides, defaults)
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
    tree = _read(path)
    base = tree.pop("_BASE_", None)
    if base is not None:
        if not isinstance(base, str):
            raise ValueError(f"{path}: _BASE_ must be the path of one yaml file, not {shown(base)}")
        yield from _layers(path.parent / base, (*seen, path.resolve()))
    yield path, tree


def _read(path: Path) -> dict[str, object]:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes and an experiment {_MAX_BYTES} at most: "
            "is it the right file?"
        )
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (NotYamlError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable yaml: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a mapping of keys is needed, not a {type(tree).__name__}")
    return tree


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
        if path in LEGACY_KEYS:
            ignored.append(path)
        elif key not in config:
            raise ValueError(f"{source}: unknown key {_named(path)}{_suggestion(path)}")
        elif isinstance(config[key], CfgNode):
            branch = {} if value is None else value
            if not isinstance(branch, Mapping):
                raise ValueError(
                    f"{source}: {path} holds keys of its own, not the value {shown(value)}"
                )
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
        raise ValueError(f"{where}: {printable(str(error))}") from None


def _named(path: str) -> str:
    return path if _PLAIN_KEY.fullmatch(path) else shown(path)


def _suggestion(path: str) -> str:
    known = [name for name, _ in leaves(default_config())]
    if path in known:  # in a yaml file
        *blocks, leaf = path.split(".")
        return f": write {leaf} into the block {'.'.join(blocks)}"
    # A key on the wrong level (LR for TRAIN.LR) is the commonest slip, so compare last names too.
    same_leaf = [name for name in known if name.split(".")[-1] == path.split(".")[-1].upper()]
    blocks = sorted({name.split(".")[0] for name in known})
    nearest = same_leaf or difflib.get_close_matches(
        path[:80].upper(), [*blocks, *known], n=1, cutoff=0.4
    )
    return f"; did you mean {nearest[0]}?" if nearest else f"; known keys: {', '.join(known)}"


def _coerced(value: object, default: object, *, where: str) -> object:
    """Return `value` with the default's type: whole numbers are rates too, and so is '1e-4'."""
    wanted = type(default)
    # Of texts, what is written in ASCII alone: float() would take digits of any script.
    if wanted is float and (type(value) is int or _is_decimal(value)):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            raise ValueError(f"{where}: {shown(value)} is not a finite number") from None
    if wanted is str and value is None:
        return ""
    if isinstance(default, list):
        item_default = default[0] if default else ""  # those that are empty hold names
        if isinstance(value, (list, tuple)):
            return [_coerced(item, item_default, where=where) for item in value]
        if type(value) is type(item_default):
            return [value]
    if type(value) is not wanted:
        quotes = ": put it in quotes" if wanted is str and isinstance(value, bool) else ""
        raise ValueError(
            f"{where}: {shown(value)} is a {type(value).__name__}, {wanted.__name__} is needed"
            f"{quotes}"
        )
    return value


def _is_decimal(value: object) -> bool:
    return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None


def default_run_folder(config: CfgNode, config_path: Path | None) -> Path:
    """Return OUTPUT_DIR/<DATASET.DATASET>/<yaml's name>, relative to the working directory."""
    name = config_path.name.removesuffix(".yaml") if config_path else config.MODEL.NAME
    return Path(config.OUTPUT_DIR) / config.DATASET.DATASET / name
