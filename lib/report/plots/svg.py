"""A figure as an SVG element within a page: no ids but its own, no addresses, the page's ink."""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

_NAMESPACE = re.compile(r"\{[^}]*\}")
_REFERENCE = re.compile(r"(?<=url\(#)[\w.-]+|(?<=^#)[\w.-]+")  # in a style, or as a whole
_LONG_NUMBER = re.compile(r"(\.\d\d)\d+")
_INK = "#000000"  # what is drawn in black has the colour of the text around the picture
_PIXELS_A_POINT = 4 / 3
_ROUNDED = ("d", "x", "y")  # to hundredths of a point
_REFERRING = ("href", "style", "clip-path")  # attributes that name other elements
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "report", "svg.image_inline": True}


def inline_svg(figure: Figure, *, name: str, summary: str) -> str:
    """Return a figure as an `<svg>` element; equal figures give equal texts.

    Its ids begin with `name`, which no other picture of the page may have. `summary` says in words
    what is seen. Texts stay texts, drawn by the reader's own fonts.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts draw it
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    _rename_ids(root, name)
    size = (float(root.get(side, "0pt")[:-2]) * _PIXELS_A_POINT for side in ("width", "height"))
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        **{side: f"{pixels:.0f}" for side, pixels in zip(("width", "height"), size, strict=True)},
        "role": "img",
        "aria-label": summary,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Take away what a page does not need: namespaces, metadata, rules for the whole page."""
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        element.tail = (element.tail or "").strip()
        if element.tag != "text":
            element.text = (element.text or "").strip()
        element.attrib = {_NAMESPACE.sub("", k): v for k, v in element.attrib.items()}
        for key in _ROUNDED:
            if key in element.attrib:
                element.set(key, " ".join(_LONG_NUMBER.sub(r"\1", element.attrib[key]).split()))
        if "style" in element.attrib:
            element.set("style", element.attrib["style"].replace(_INK, "currentColor"))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Put `name` in front of the ids that something refers to, and take the others away."""
    meant: set[str] = set()
    for element in root.iter():
        for key in _REFERRING:
            if key in element.attrib:
                meant.update(_REFERENCE.findall(element.attrib[key]))
                element.set(key, _REFERENCE.sub(rf"{name}-\g<0>", element.attrib[key]))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in meant:
            element.set("id", f"{name}-{own}")
