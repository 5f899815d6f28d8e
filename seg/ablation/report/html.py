"""A report as one HTML file that needs no other, no network and no script."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from seg.ablation.report.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Details,
    Document,
    Figure,
    Heading,
    Panel,
    Table,
    Text,
)
from seg.ablation.report.style import STYLE

# The page says of itself that it loads and runs nothing, so a browser holds it to that whatever a record contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MEDIA = {"svg": "image/svg+xml", "png": "image/png"}


def to_html(document: Document) -> str:
    """Writes a document as HTML. Equal documents give equal text."""
    sections = [block.text for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<li><a href="#{_anchor(text)}">{_text(text)}</a></li>' for text in sections)
    first = next((i for i, block in enumerate(document.blocks) if isinstance(block, Heading)), len(document.blocks))
    head, rest = document.blocks[:first], document.blocks[first:]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{_text(document.title)}</h1>\n{_blocks(head)}\n</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n{_blocks(rest)}\n</main>\n</body>\n</html>\n'
    )


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    """Writes one block."""
    match block:
        case Heading():
            anchor = f' id="{_anchor(block.text)}"' if block.level == 2 else ""
            return f"<h{block.level}{anchor}>{_text(block.text)}</h{block.level}>"
        case Text():
            role = f' class="{block.role}"' if block.role else ""
            return f"<p{role}>{_text(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Figure():
            whole = " whole" if block.whole else ""
            panels = "".join(map(_panel, block.panels))
            return (
                f'<figure class="panels{whole}"><div class="grid">{panels}</div>'
                f"<figcaption>{_text(block.caption)}</figcaption></figure>"
            )
        case Code():
            return f"<pre><code>{escape(block.text)}</code></pre>"
        case Details():
            return f"<details><summary>{_text(block.summary)}</summary>\n{_blocks(block.blocks)}\n</details>"


def _table(table: Table) -> str:
    """Writes a table that scrolls by itself where a screen is too narrow; its first column stays."""
    heads = "".join(f'<th scope="col">{_text(column)}</th>' for column in table.columns)
    rows = "".join(
        f"<tr>{_cell(cells[0], 'th', scope='row')}{''.join(_cell(cell, 'td') for cell in cells[1:])}</tr>"
        for cells in table.rows
    )
    wide = " wide" if table.wide else ""
    # The caption stands outside: within the table it would be as wide as the table, and scroll away with it.
    return (
        f'<p class="caption">{_text(table.caption)}</p><div class="scroll{wide}" tabindex="0" role="region" '
        f'aria-label="{escape(table.caption)}"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(cell: Cell, tag: str, *, scope: str = "") -> str:
    attributes = f' scope="{scope}"' if scope else ""
    note = f"<small>{_text(cell.note)}</small>" if cell.note else ""
    text = _text(cell.text)
    if scope:
        # A browser would break skip_1-4 after its hyphen.
        text = re.sub(r"[^\s_<>]*-[^\s_<>]*", r'<span class="name">\g<0></span>', text)
    return f"<{tag}{attributes}>{text}{note}</{tag}>"


def _panel(panel: Panel) -> str:
    """Writes a picture into the page."""
    kind = panel.file.rpartition(".")[2]
    content = base64.b64encode(panel.content).decode("ascii")
    picture = f'<img alt="{escape(panel.alt)}" src="data:{MEDIA[kind]};base64,{content}">'
    return f'<div>{picture}<p class="caption">{_text(panel.caption)}</p></div>' if panel.caption else picture


def _text(text: str) -> str:
    """Escapes a text; a long name may break after an underscore."""
    return escape(text, quote=False).replace("_", "_<wbr>")


def _anchor(text: str) -> str:
    """Gives the target of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
