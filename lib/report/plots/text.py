"""Text in pictures: fonts, shortened names, and a way to save that reads no formulas into them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from lib.runtime.files import write_atomically
from lib.runtime.text import num_columns

DRAWN_BY = "HRNet plots"  # what a picture of ours says that it was made with
MAX_COLUMNS = 28  # of a class name; a column is the width of a Latin character
FONT = "DejaVu Sans"  # comes with matplotlib
CJK_FONTS = (  # looked at first: names of classes are Chinese more often than anything else
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
_SIZES = (
    "font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize", "xtick.labelsize",
    "ytick.labelsize",
)  # fmt: skip
_BOXES = "Last Resort"  # a font, of matplotlib's own, with a box for every character
_NORMAL_WEIGHTS = (400, "normal", "regular", "book")
_PACKAGES = "fonts-noto-cjk, for scripts other than Chinese, Japanese and Korean fonts-noto-core"


@dataclass(frozen=True)
class Labels:
    """Texts for a picture."""

    texts: tuple[str, ...]
    fonts: tuple[str, ...]  # families that have all their characters between them
    num_undrawn: int  # names that no font here has the characters of

    @property
    def remark(self) -> str:
        """A warning on names that cannot be drawn, with what mends it; '' where all are."""
        return undrawn_remark(self.num_undrawn)


def undrawn_remark(num_names: int) -> str:
    """Return a warning that so many names stand as numbers, with what mends it; '' for none."""
    if not num_names:
        return ""
    names = "1 name has" if num_names == 1 else f"{num_names} names have"
    return (
        f"{names} characters that no font here can draw: a number stands in the picture instead; "
        f"install a font that has them (apt-get install {_PACKAGES}) and draw it again"
    )


def labels_of(names: Sequence[str], stand_ins: Sequence[str]) -> Labels:
    """Return each name on one line, or its stand-in where it is blank or cannot be drawn."""
    short = [" ".join(name.split()) for name in names]
    fonts, drawable = _fonts_for(frozenset().union(*short))
    are_drawn = [drawable.issuperset(name) for name in short]
    texts = [
        name if name and is_drawn else stand_in
        for name, is_drawn, stand_in in zip(short, are_drawn, stand_ins, strict=True)
    ]
    return Labels(tuple(texts), fonts, are_drawn.count(False))


def class_labels(class_names: Sequence[str], num_classes: int) -> Labels:
    """Return what to call each class; `#3`, with its number, where its name cannot be drawn."""
    names = [*class_names[:num_classes], *[""] * (num_classes - len(class_names))]
    return labels_of(names, [f"#{number}" for number in range(num_classes)])


def _fonts_for(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return font families for characters, as far as there are any, and what these can draw."""
    fonts: tuple[str, ...] = (FONT,)
    drawable = _characters(FONT)
    for font in _other_fonts() if wanted - drawable else ():
        found = _characters(font)
        if (wanted - drawable) & found:
            fonts, drawable = (*fonts, font), drawable | found
        if drawable >= wanted:
            break
    return fonts, drawable


def _other_fonts() -> Iterator[str]:
    """Yield the families installed, those that are looked at first in front."""
    _find_new_fonts()
    installed = {
        entry.name
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and entry.weight in _NORMAL_WEIGHTS
    }
    first = [font for font in CJK_FONTS if font in installed]
    yield from first
    yield from sorted(font for font in installed.difference(first) if _BOXES not in font)


@cache
def _find_new_fonts() -> None:
    """Add fonts that were installed after matplotlib wrote its list of them, once a process."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (RuntimeError, OSError, ValueError):  # bitmaps, or damaged
            continue


@cache
def _characters(font: str) -> frozenset[str]:
    """Return the characters that a font family has a glyph for."""
    family = font_manager.FontProperties(family=[font])  # a list: a string would be a pattern
    try:
        file = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False))
    except (RuntimeError, OSError, ValueError):  # bitmaps, damaged, or taken away
        return frozenset()
    return frozenset(map(chr, file.get_charmap()))


def shortened(name: str, num_most: int = MAX_COLUMNS) -> str:
    """Return a name on one line; one of more columns keeps its beginning and its end."""
    name = " ".join(name.split())
    if num_columns(name) <= num_most:
        return name
    tail = _first(name[::-1], num_most // 3)[::-1]
    return f"{_first(name, num_most - 1 - num_columns(tail))}…{tail}"


def wrapped(name: str, num_lines: int) -> str:
    """Return a name in up to so many lines of MAX_COLUMNS, cut in its middle if they are full."""
    lines: list[str] = [""]
    for word in shortened(name, num_lines * MAX_COLUMNS * 3 // 4).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if num_columns(longer) <= MAX_COLUMNS:
            lines[-1] = longer
        else:
            lines.append(shortened(word))
    fits = len(lines) <= num_lines
    return "\n".join(line for line in lines if line) if fits else shortened(name)


def _first(text: str, num_most: int) -> str:
    """Return as much of the beginning of a text as so many columns hold."""
    used = 0
    for place, character in enumerate(text):
        used += num_columns(character)
        if used > num_most:
            return text[:place]
    return text


def width_inches(text: str, points: float) -> float:
    """Return the width of a text's longest line in the fonts of the context that it is drawn in."""
    files = [
        font_manager.findfont(font_manager.FontProperties(family=[family]))
        for family in matplotlib.rcParams["font.family"]
    ]
    font = font_manager.get_font(files)
    font.set_size(points, 72)
    widths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character without a glyph: some width will do
        for line in text.split("\n"):
            font.set_text(line)
            widths.append(font.get_width_height()[0] / 64 / 72)
    return max(widths)


def plain_text(*fonts: str, points: float | None = None) -> AbstractContextManager[None]:
    """Return a context in which `$`, `_` and `\\` are characters like any other.

    `points`: the size of every text, where matplotlib's own sizes do not do.
    """
    sizes = {} if points is None else dict.fromkeys(_SIZES, points)
    settings = {"font.family": list(fonts), "text.parse_math": False, "text.usetex": False}
    return matplotlib.rc_context(settings | sizes)  # type: ignore[arg-type,operator]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, in one piece. Raises OSError."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": DRAWN_BY})
    write_atomically(buffer.getvalue(), path)
