"""Matplotlib figures as small SVG: real text, titles on marks for hover, and no style that a content policy refuses."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#1b2026", "#d7dbe0", "#fffffe"
"""Colours of text and lines, of grids, and of the ground; a page replaces them by its own."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML can hold, such as those that control a terminal; a mark takes their place."""
RC_PARAMS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "seg",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "legend.frameon": False,
    "text.parse_math": False,  # names of variants and classes are no formulas
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of a report.

    Attributes:
        name: Name of its file, without the ending.
        alt: What the figure shows, for readers who do not see it.
        file: SVG file with a light ground, for Markdown.
        inline: SVG element for a page, whose text and lines take the colour of the page.
    """

    name: str
    alt: str
    file: str
    inline: str


@contextmanager
def drawing(width: float, height: float, *, layout: Literal["constrained"] | None = "constrained") -> Iterator[Figure]:
    """Yields a figure with the style of reports; sizes in inch. Nothing touches the state of pyplot."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(RC_PARAMS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # text stays text, in the reader's fonts
        yield Figure(figsize=(width, height), layout=layout)


def to_picture(figure: Figure, name: str, alt: str, titles: Mapping[str, str]) -> Picture:
    """Writes a figure as SVG, whatever its texts hold; see `NOT_IN_XML`.

    Args:
        figure: The figure.
        name: Name of the file without the ending; ids in the SVG begin with it.
        alt: What the figure shows.
        titles: Text on hover by the ``gid`` of a mark.
    """
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(_in_xml(content.getvalue().decode()))
    for child in list(root):
        if child.tag == f"{{{SVG}}}metadata" or child.find(f"{{{SVG}}}style") is not None:
            root.remove(child)
    root.attrib.pop("width"), root.attrib.pop("height")
    root.attrib |= {"role": "img", "aria-label": alt, "font-family": FONT, "stroke-linejoin": "round"}
    for element in root.iter():
        _plain_style(element)
        own = element.get("id", "")
        if own in titles:
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text = titles[own]
            element.insert(0, title)
            element.set("class", "mark")
        if own:
            element.set("id", f"{name}-{own}")
        for key in (f"{{{XLINK}}}href", "href"):
            if element.get(key, "").startswith("#"):
                element.set(key, f"#{name}-{element.attrib[key][1:]}")
        if element.get("clip-path", "").startswith("url(#"):
            element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{name}-"))
        element.tail = None  # line breaks between elements
        if element.get("d"):
            element.set("d", " ".join(element.attrib["d"].split()))
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    text = _in_xml(ElementTree.tostring(root, encoding="unicode"))
    inline = text.replace(f'fill="{PAPER}"', 'fill="none"').replace(INK, "currentColor")
    return Picture(name=name, alt=_in_xml(alt), file=text + "\n", inline=inline.replace(f'"{FAINT}"', '"var(--faint)"'))


def _in_xml(text: str) -> str:
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _plain_style(element: ElementTree.Element) -> None:
    """Turns the style of an element into attributes, which no content policy forbids."""
    style = element.attrib.pop("style", "")
    for part in filter(str.strip, style.split(";")):
        key, _, value = part.partition(":")
        if key.strip() != "font-family":
            element.set(key.strip(), value.strip())
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
