"""KEY VALUE pairs of a command line, as a tree of settings."""

from __future__ import annotations

from collections.abc import Sequence

from yacs.config import CfgNode

from lib.config.check import leaves
from lib.config.yaml_text import MAX_DEPTH, read_yaml
from lib.runtime.checked import shown
from lib.runtime.text import printable


def tree_of(overrides: Sequence[str], defaults: CfgNode) -> dict[str, object]:
    """Return `["TRAIN.LR", "0.1"]` as `{"TRAIN": {"LR": 0.1}}`; see `lib.config.load_config`.

    The last of two values of one key counts; `repeats` has the words for it. Raises ValueError.
    """
    _check_words(overrides, defaults)
    tree: dict[str, object] = {}
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        *parents, leaf = key.split(".")
        if len(parents) >= MAX_DEPTH:
            raise ValueError(f"command line: unknown key {shown(key)}: no key has so many parts")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ValueError(f"override {key}: {printable(parent)} was given a value before")
            node = child
        node[leaf] = text if _is_text(defaults, key) else _value(key, text)
    return tree


def repeats(overrides: Sequence[str]) -> list[str]:
    """Return a remark for each key that has another value further on."""
    last = dict(zip(overrides[::2], overrides[1::2], strict=False))
    return [
        f"{printable(key)} is given twice: {shown(last[key])} counts, not {shown(text)}"
        for key, text in zip(overrides[::2], overrides[1::2], strict=False)
        if text != last[key]
    ]


def _check_words(words: Sequence[str], defaults: CfgNode) -> None:
    """Raise ValueError for words that are no pairs, or are written as other programs want them."""
    known = {name for name, _ in leaves(defaults)}
    is_odd = len(words) % 2 == 1
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        if equals and (key.upper() in known if is_odd else position % 2 == 0):
            apart = f"{key} {value or 'VALUE'}"
            raise ValueError(
                f"override {shown(word)}: key and value are two words: {printable(apart)}"
            )
        if not is_odd and position % 2 == 0 and word not in known and word.upper() in known:
            raise ValueError(f"command line: unknown key {word}; did you mean {word.upper()}?")
    if is_odd:
        raise ValueError(f"overrides come in pairs KEY VALUE; {shown(words[-1])} has no partner")


def _value(key: str, text: str) -> object:
    try:
        return read_yaml(text)
    except ValueError as error:
        name = printable(key)
        raise ValueError(f"override {name}: {shown(text)} is not a yaml value ({error})") from None


def _is_text(defaults: CfgNode, path: str) -> bool:
    # The path of a file may hold what yaml gives a meaning to: ` #`, `: `, brackets, digits alone.
    node: object = defaults
    for part in path.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return isinstance(node, str)
