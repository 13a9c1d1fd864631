"""Text in pictures: fonts, shortened names, and a way to save that reads no formulas into them."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from lib.files import write_atomically

DRAWN_BY = "HRNet plots"  # what a picture of ours says that it was made with
_MAX_CHARACTERS = 26  # of a class name
FONT = "DejaVu Sans"  # comes with matplotlib
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "SimHei",
    "Microsoft YaHei",
    "PingFang SC",
    "Heiti SC",
    "Arial Unicode MS",
)


@dataclass(frozen=True)
class Labels:
    """What to call the classes in a picture."""

    texts: tuple[str, ...]  # by class
    fonts: tuple[str, ...]  # families that have all their characters between them


def labels_of(class_names: Sequence[str], num_classes: int) -> Labels:
    """Return what to call each class in a picture; `#3` where its name cannot be drawn."""
    names = [shortened(name) for name in class_names[:num_classes]]
    names += [""] * (num_classes - len(names))
    fonts: tuple[str, ...] = (FONT,)
    drawable = _characters(FONT)
    if any(not drawable.issuperset(name) for name in names):
        installed = {entry.name for entry in font_manager.fontManager.ttflist}
        for font in [font for font in CJK_FONTS if font in installed][:1]:
            fonts, drawable = (FONT, font), drawable | _characters(font)
    texts = [
        name if name and drawable.issuperset(name) else f"#{index}"
        for index, name in enumerate(names)
    ]
    return Labels(tuple(texts), fonts)


def _characters(font: str) -> frozenset[str]:
    """Return the characters that a font family has a glyph for."""
    family = font_manager.FontProperties(family=[font])  # a list: a string would be a pattern
    file = font_manager.get_font(font_manager.findfont(family))
    return frozenset(map(chr, file.get_charmap()))


def shortened(name: str) -> str:
    """Return a name on one line; a long one keeps its beginning and its end."""
    name = " ".join(name.split())
    if len(name) <= _MAX_CHARACTERS:
        return name
    tail = _MAX_CHARACTERS // 3
    return f"{name[: _MAX_CHARACTERS - tail - 1]}…{name[-tail:]}"


def num_columns(text: str) -> int:
    """Return the width of a text in characters of Latin script."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def plain_text(*fonts: str) -> AbstractContextManager[None]:
    """Return a context in which `$`, `_` and `\\` are characters like any other."""
    return matplotlib.rc_context(
        {"font.family": list(fonts), "text.parse_math": False, "text.usetex": False}
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, in one piece. Raises OSError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": DRAWN_BY})
    write_atomically(buffer.getvalue(), path)
