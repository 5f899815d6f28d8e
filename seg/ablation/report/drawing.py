"""What all figures of a report share: their size, the look of each variant, and bytes that never change."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seg.ablation.report.document import Panel
from seg.ablation.report.numbers import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that people with any colour vision tell apart, on white; black is the baseline's.

References:
    M. Okabe, K. Ito, Color Universal Design, 2008, https://jfly.uni-koeln.de/color/. Order ours; yellow left out.
"""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Shapes and strokes that tell variants apart without colour. The three cycles have no common divisor."""

WIDTH_INCH, HEIGHT_INCH = 4.6, 3.4
"""Size of a panel: narrow enough that its text can be read on a telephone."""

LONG_NAME = 22
"""Letters of a name from which a key has one column."""

SETTINGS = {
    "svg.hashsalt": "seg",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.markersize": 6,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a variant is drawn, in every figure.

    Attributes:
        number: Its number, 0 for the baseline.
        colour: Its colour.
        marker: Its shape.
        line: Its stroke.
    """

    number: int
    colour: str
    marker: str
    line: Any


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Gives each variant its look, the baseline first."""
    found = {}
    for number, name in enumerate(names):
        if number == 0:
            found[name] = Look(number=0, colour="black", marker="*", line="-")
            continue
        found[name] = Look(
            number=number,
            colour=COLOURS[(number - 1) % len(COLOURS)],
            marker=MARKERS[(number - 1) % len(MARKERS)],
            line=LINES[(number - 1) % len(LINES)],
        )
    return found


@contextmanager
def drawing(width: float = WIDTH_INCH, height: float = HEIGHT_INCH) -> Iterator[Figure]:
    """Gives an empty figure, drawn with the report's settings and no others.

    Args:
        width: In inches.
        height: In inches.
    """
    # Imported here: matplotlib takes longer to import than all the rest of a report.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)  # type: ignore[arg-type]
        yield Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panel(figure: Figure, file: str, alt: str) -> Panel:
    """Turns a figure into an SVG: the same bytes for the same figure, without a date or a version."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return Panel(file=f"{file}.svg", content=content.getvalue(), alt=alt)


def legend_panel(names: Sequence[str], styles: Mapping[str, Look], file: str, *, lines: bool = False) -> Panel:
    """Draws which look is whose."""
    from matplotlib.lines import Line2D

    columns = 2 if max(map(len, names)) <= LONG_NAME else 1
    rows = -(-len(names) // columns)
    with drawing(WIDTH_INCH, 0.2 + 0.19 * rows) as figure:
        handles = [
            Line2D(
                [],
                [],
                color=styles[name].colour,
                marker=styles[name].marker,
                linestyle=styles[name].line if lines else "none",
                label=f"{styles[name].number}  {name}",
            )
            for name in names
        ]
        figure.legend(handles=handles, loc="center left", ncols=columns, handlelength=3.4 if lines else 1.2)
        return panel(
            figure,
            file,
            f"Key: colour and shape of {counted(len(names), 'variant')} from {names[0]} to {names[-1]}; their numbers "
            "are those of the table of variants.",
        )


def name_rows(
    axis: Axes, names: Sequence[str], styles: Mapping[str, Look], *, breaks: Sequence[int] = (), numbers: bool = True
) -> None:
    """Labels the rows of a plot with names, the first on top.

    Args:
        axis: The plot.
        names: Names of the rows.
        styles: Their looks.
        breaks: Rows before which a thin line separates families.
        numbers: Whether each variant's number stands beside its name.
    """
    texts = [f"{name}  {styles[name].number}" if numbers else name for name in names]
    axis.set_yticks(range(len(names)), texts, fontsize=8.5)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    for row in breaks:
        axis.axhline(row - 0.5, color="0.75", linewidth=0.6, zorder=0)
