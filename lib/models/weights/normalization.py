"""Normalizations that a checkpoint states in passing, so that another one is not used unsaid."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping, Sequence

from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD
from lib.models.weights.numpy_stand_ins import entries_of

_CONFIG_TEXTS = ("cfg", "config")  # of meta in OpenMMLab's checkpoints: a configuration in Python
_SCALES = (1, 255)  # OpenMMLab's means are of levels, most others of shares
_MAX_DEPTH, _MAX_CHARACTERS = 4, 2**20


def other_normalization(content: object) -> str:
    """Return in words the first normalization in a checkpoint that is not ImageNet's usual one.

    Looked at are its mappings, and configurations that it holds as text, which are not run.
    Returns '' where there is none.
    """
    for place, given in _mappings(content, "", set()):
        mean, std = _triple(given.get("mean")), _triple(given.get("std"))
        if not mean or not std:
            continue
        is_rgb = given.get("to_rgb", not place.endswith(_CONFIG_TEXTS)) is not False
        is_usual = any(
            _are_close(mean, IMAGENET_MEAN, scale) and _are_close(std, IMAGENET_STD, scale)
            for scale in _SCALES
        )
        if not (is_rgb and is_usual):
            channels = "" if is_rgb else " in BGR"
            return f"{place} states a mean of {mean} and a std of {std}{channels}"
    return ""


def _are_close(given: Sequence[float], usual: Sequence[float], scale: int) -> bool:
    return all(
        math.isclose(ours, share * scale, abs_tol=0.002 * scale)
        for ours, share in zip(given, usual, strict=True)
    )


def _triple(value: object) -> tuple[float, ...]:
    """Return three numbers, empty where it is anything else."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return ()
    are_numbers = all(isinstance(number, int | float) for number in value)
    return tuple(map(float, value)) if are_numbers else ()


def _mappings(
    content: object, place: str, seen: set[int]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each mapping in a checkpoint, and the keys that lead to it."""
    entries = entries_of(content)
    if not entries or id(content) in seen or place.count(".") > _MAX_DEPTH:
        return
    seen.add(id(content))  # a pickle may hold a mapping within itself
    yield place or "the file", entries
    for key, value in entries.items():
        below = f"{place}.{key}" if place else str(key)
        if isinstance(value, str) and key in _CONFIG_TEXTS:
            yield from ((below, given) for given in _literals(value))
        else:
            yield from _mappings(value, below, seen)


def _literals(text: str) -> Iterator[dict[str, object]]:
    """Yield what each `dict(key=value)` and `{"key": value}` of a Python text gives literally."""
    try:
        nodes = list(ast.walk(ast.parse(text[:_MAX_CHARACTERS])))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            pairs = list(zip(keys, node.values, strict=True))
        yield {
            str(key): _literal(value) for key, value in pairs if key in ("mean", "std", "to_rgb")
        }


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
