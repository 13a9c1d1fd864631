"""Weights by name: list [TEXT], get NAME [--out PATH], inspect WEIGHTS, convert WEIGHTS OUTPUT.

WEIGHTS is a file of any usual form, a run folder, a name that `list` shows, or an http(s) address.
"""

from __future__ import annotations

import argparse
import filecmp
import os
from collections.abc import Callable
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.models.weights.find import cached, find_weights, published
from lib.models.weights.forms import weight_suffix
from lib.models.weights.registry import DEFAULTS, ENTRIES, Entry
from lib.runtime.cli import EXIT_OK, ArgumentParser, run_script, say
from lib.runtime.files import open_atomically, write_whole

_BLOCK_BYTES = 1 << 20
_HEADER = ("name", "network", "published by", "top-1", "top-5", "preprocessing", "cached")


def main() -> int:
    """Do what the command line asks for; print lines."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("command", choices=tuple(_COMMANDS), help="what to do")
    add("words", nargs="*", metavar="WORD", help="TEXT, NAME, WEIGHTS or WEIGHTS OUTPUT; see above")
    add("--out", metavar="PATH", help="get: copy the file there too; without .pth, say, a folder")
    add("--cfg", type=Path, metavar="YAML", help="convert: their network, where it has no name")
    args = parser.parse_intermixed_args()
    command, num_words = _COMMANDS[args.command]
    if len(args.words) not in num_words:
        wanted = " or ".join(map(str, num_words))
        raise ValueError(
            f"{args.command} takes {wanted} words, not {len(args.words)} "
            f"({' '.join(args.words)}): --help shows which"
        )
    say(*command(args))
    return EXIT_OK


def _list(args: argparse.Namespace) -> list[str]:
    text = "".join(args.words)
    rows = [_row(entry) for entry in ENTRIES.values() if text.lower() in entry.name.lower()]
    if not rows:
        raise ValueError(f"no name has {text!r} in it; list without it shows all")
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_HEADER, *rows)
    ]
    short = f"{next(iter(DEFAULTS))} alone means {next(iter(DEFAULTS.values()))}"
    return [*lines, "", f"{short}, and so with each network."]


def _row(entry: Entry) -> tuple[str, ...]:
    top5 = "-" if entry.top5 is None else f"{entry.top5:.2f}"
    return (
        entry.name,
        entry.arch,
        entry.source,
        f"{entry.top1:.2f}",
        top5,
        entry.preprocessing,
        "yes" if cached(entry) else "no",
    )


def _get(args: argparse.Namespace) -> list[str]:
    path = find_weights(args.words[0])
    if args.out is None:
        return [str(path)]
    target = Path(args.out)
    if args.out.endswith(os.sep) or target.is_dir() or not weight_suffix(target.name):
        target /= _plain_name(path, published(args.words[0]))
    _copy(path, target)
    return [str(target)]


def _plain_name(path: Path, entry: Entry | None) -> str:
    if entry is None:
        return path.name
    return f"{entry.name}{weight_suffix(path.name) or path.suffix}"


def _copy(path: Path, target: Path) -> None:
    """Raises ValueError where another file has that name, or its folder's."""
    if target.parent.exists() and not target.parent.is_dir():
        raise ValueError(f"{target.parent} is a file, not a folder: move it, or give another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if not filecmp.cmp(path, target, shallow=False):
            raise ValueError(
                f"{target} is there already, of other content than {path}: move it, or give "
                "another --out"
            )
        return
    with open(path, "rb") as source, open_atomically(target) as copy:
        while block := source.read(_BLOCK_BYTES):
            write_whole(copy, block)


def _inspect(args: argparse.Namespace) -> list[str]:
    from lib.models.weights.inspect import inspect  # loads torch, which `list` and `get` do without

    entry = published(args.words[0])
    return [*inspect(args.words[0]), *([] if entry is None else _facts(entry))]


def _facts(entry: Entry) -> list[str]:
    top5 = "" if entry.top5 is None else f", top-5 {entry.top5:g}%"
    return [
        f"published  {entry.name} by {entry.source}, licence {entry.licence}, {entry.url}",
        f"accuracy   top-1 {entry.top1:g}%{top5} (theirs, with {entry.preprocessing})",
    ]


def _convert(args: argparse.Namespace) -> list[str]:
    from lib.config.load import load_config
    from lib.models.weights.inspect import convert

    config = load_config(args.cfg) if args.cfg else None
    return [convert(args.words[0], Path(args.words[1]), config)]


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], list[str]], tuple[int, ...]]] = {
    "list": (_list, (0, 1)),
    "get": (_get, (1,)),
    "inspect": (_inspect, (1,)),
    "convert": (_convert, (2,)),
}


if __name__ == "__main__":
    run_script(main)
