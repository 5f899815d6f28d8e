"""A report as a list of blocks, which HTML and Markdown are made of; texts are plain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading: level 2 for a section, 3 for a part of it."""

    text: str
    level: int = 2


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str
    role: str = ""
    """``lead`` for the recommendation, ``notice`` for what must not be overlooked, else nothing."""


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: its text, and a smaller line below it."""

    text: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cell of a row is its head.

    Attributes:
        columns: Heads of the columns.
        rows: Cells, as many in each row as there are columns.
        caption: How to read it.
        wide: Whether it has so many columns that paper is turned.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture.

    Attributes:
        file: Its name in the folder of figures.
        content: The file, SVG or PNG by its name.
        alt: What it shows, for those who do not see it.
        caption: What stands below this picture alone.
    """

    file: str
    content: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Pictures that belong together.

    Attributes:
        panels: The pictures; on a narrow screen they stand below one another.
        caption: How to read them.
        whole: Whether a panel takes the whole width.
    """

    panels: tuple[Panel, ...]
    caption: str
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text to be shown as it is."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Details:
    """Blocks that are folded up."""

    summary: str
    blocks: tuple[Block, ...]


Block = Heading | Text | Bullets | Table | Figure | Code | Details


@dataclass(frozen=True, kw_only=True)
class Document:
    """A report.

    Attributes:
        title: Its title.
        blocks: Its content.
    """

    title: str
    blocks: tuple[Block, ...]


def row(*cells: str | Cell) -> tuple[Cell, ...]:
    """Makes a row of a table."""
    return tuple(cell if isinstance(cell, Cell) else Cell(text=cell) for cell in cells)
