"""A report as Markdown for a code host, with its pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from seg.ablation.report.document import Block, Bullets, Cell, Code, Details, Document, Figure, Heading, Table, Text

FIGURES = "figures"
"""Folder of the pictures, beside the report."""


def to_markdown(document: Document) -> str:
    """Writes a document as Markdown. Equal documents give equal text."""
    return f"# {_text(document.title)}\n\n{_blocks(document.blocks)}\n"


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    """Writes one block."""
    match block:
        case Heading():
            return f"{'#' * block.level} {_text(block.text)}"
        case Text():
            return {"lead": "**{}**", "notice": "> {}"}.get(block.role, "{}").format(_text(block.text))
        case Bullets():
            return "\n".join(f"- {_text(item)}" for item in block.items)
        case Table():
            return f"{_text(block.caption)}\n\n{_table(block)}"
        case Figure():
            # Alternative texts stand in brackets and must not close them.
            pictures = [
                f"![{_text(panel.alt)}]({FIGURES}/{panel.file})"
                + (f"\n\n{_text(panel.caption)}\n" if panel.caption else "")
                for panel in block.panels
            ]
            return "\n".join(pictures) + f"\n\n{_text(block.caption)}"
        case Code():
            longest = max((len(found) for found in re.findall(r"`+", block.text)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{fence}\n{block.text.rstrip()}\n{fence}"
        case Details():
            summary = block.summary.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return f"<details><summary>{summary}</summary>\n\n{_blocks(block.blocks)}\n\n</details>"


def _table(table: Table) -> str:
    rows = ["| " + " | ".join(map(_cell, cells)) + " |" for cells in table.rows]
    head = "| " + " | ".join(map(_text, table.columns)) + " |"
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    return "\n".join([head, rule, *rows])


def _cell(cell: Cell) -> str:
    return _text(cell.text) + (f"<br>{_text(cell.note)}" if cell.note else "")


def _text(text: str) -> str:
    """Escapes what Markdown or a table would read as its own."""
    plain = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|<>~#$])", r"\\\1", plain)
