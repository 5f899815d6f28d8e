"""The U-Net with its widths to scale, and a curve for each map, as SVG with real text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from seg.compression.sites import Curve, Site
from seg.figures.svg import FAINT, INK, Picture, drawing, to_picture
from seg.words import fixed

WIDTH = 4.4
"""Width of the drawing in inch: its text is readable on a phone."""
ROW, BAR, HEADING = 0.37, 0.13, 0.3
COLUMNS = {"encoder": 0.08, "skip": 1.6, "up": 3.1, "decoder": 3.1}
"""Where the bars of a column begin, in inch."""
LONGEST = 1.22
"""Length of the widest map above the bottom, in inch."""
LOWEST = 3e-5
"""Lower end of the scale of curves, in Dice."""
FILL, PALE = "#2f7fc1", "#2f7fc155"


def draw_network(
    sites: Sequence[Site], alone: Mapping[str, int], together: Mapping[str, int], grids: Sequence[Sequence[int]]
) -> Picture:
    """Draws the maps of a U-Net: outlines as they are, filled what they need.

    Args:
        sites: The maps, without those of kernels.
        alone: Narrowest safe width of each where it alone is narrowed, by name.
        together: The same where all are narrowed at once.
        grids: Voxels of each stage, from full resolution down.
    """
    bottom = len(grids) - 1
    rows = [max(2, sum(s.stage == stage and s.part in ("up", "decoder") for s in sites)) for stage in range(bottom)]
    rows.append(sum(s.stage == bottom for s in sites))
    tops = [HEADING + sum(ROW * count + HEADING for count in rows[:stage]) for stage in range(len(rows))]
    height = tops[-1] + ROW * rows[-1] + HEADING + 0.75
    widest = max((s.channels for s in sites if s.stage < bottom), default=1)
    deepest = max((s.channels for s in sites if s.stage == bottom), default=1)
    scale = min(LONGEST / widest, 0.95 * WIDTH / deepest)
    titles: dict[str, str] = {}
    with drawing(WIDTH, height, layout=None) as figure:
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_xlim(0, WIDTH)
        axis.set_ylim(height, 0)
        axis.axis("off")
        for text, place in (("Encoder", "encoder"), ("Skip", "skip"), ("Decoder", "decoder")):
            axis.text(COLUMNS[place], 0.17, text, fontweight="bold", fontsize=9)
        for stage, (top, grid) in enumerate(zip(tops, grids, strict=True)):
            name = "bottom" if stage == bottom else f"stage {stage}"
            axis.plot([0.04, WIDTH - 0.04], [top, top], color=FAINT, linewidth=0.8)
            axis.text(0.08, top + 0.18, f"{name}: {' × '.join(map(str, grid))} voxels", fontsize=8, style="italic")
        seen: dict[tuple[int, str], int] = {}
        for number, site in enumerate(sites):
            column = "decoder" if site.part == "up" else site.part
            row = seen.get((site.stage, column), 0)
            seen[site.stage, column] = row + 1
            if column == "decoder":  # the flow is upwards
                row = rows[site.stage] - 1 - row
            if column == "skip":
                row = 1
            y = tops[site.stage] + HEADING + ROW * row
            left = COLUMNS[site.part]
            if site.stage == bottom:
                left = max(0.08, (WIDTH - scale * site.channels) / 2)
            _draw_map(axis, site, (left, y), scale, alone[site.name], together[site.name], f"map{number}")
            titles[f"map{number}"] = (
                f"{site.name}: {site.channels} channels; {alone[site.name]} where it alone is narrowed, "
                f"{together[site.name]} where all are"
            )
        for stage in range(bottom):
            y = tops[stage] + HEADING + ROW + 0.17 + BAR / 2
            for part, reader in (("encoder", "skip"), ("skip", "decoder")):
                lengths = [scale * s.channels for s in sites if s.stage == stage and s.part == part]
                start = COLUMNS[part] + (lengths[-1] if lengths else 0.0)
                _arrow(axis, (start + 0.03, y), (COLUMNS[reader] - 0.03, y))
            lower = tops[stage + 1]
            _arrow(axis, (COLUMNS["encoder"] + 0.7, lower - 0.1), (COLUMNS["encoder"] + 0.7, lower + 0.06))
            _arrow(axis, (COLUMNS["decoder"] + 1.1, lower + 0.06), (COLUMNS["decoder"] + 1.1, lower - 0.1))
        _draw_key(axis, height - 0.7)
        alt = f"U-Net of {len(grids)} stages: widths now and safe, " + "; ".join(
            f"{s.name} {alone[s.name]} of {s.channels}" for s in sites
        )
        return to_picture(figure, "network", alt, titles)


def _draw_map(
    axis: Axes, site: Site, corner: tuple[float, float], scale: float, alone: int, together: int, gid: str
) -> None:
    x, y = corner
    label = {"skip": "skip", "up": "up"}.get(site.part, site.name.split()[-1])
    axis.text(x, y + 0.12, f"{label}  {alone} · {together} · {site.channels}", fontsize=8)
    for width, colour in ((together, PALE), (alone, FILL)):
        axis.add_patch(Rectangle((x, y + 0.17), scale * width, BAR, facecolor=colour, linewidth=0))
    axis.add_patch(
        Rectangle((x, y + 0.17), scale * site.channels, BAR, facecolor="none", edgecolor=INK, linewidth=0.8, gid=gid)
    )


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.7, "alpha": 0.6})


def _draw_key(axis: Axes, top: float) -> None:
    lines = (
        (FILL, "alone: channels needed where this map alone is narrowed"),
        (PALE, "together: channels needed where all maps are narrowed"),
        ("none", "now: channels of the trained network"),
    )
    for row, (colour, text) in enumerate(lines):
        y = top + 0.21 * row
        axis.add_patch(Rectangle((0.08, y), 0.24, BAR, facecolor=colour, edgecolor=INK, linewidth=0.8))
        axis.text(0.4, y + 0.11, text, fontsize=8)


def draw_curve(curve: Curve, margin: float, number: int) -> Picture:
    """Draws the Dice that a map is predicted to lose by its width, of the class that loses most, with its interval."""
    widths = np.array(curve.widths)
    worst = [curve.worst(width) for width in curve.widths]
    lowest = min(LOWEST, margin / 10)
    lost, low, high = (
        np.clip(np.nan_to_num(ends[range(len(widths)), worst], posinf=1.0), lowest, 1.0)
        for ends in (curve.lost, curve.low, curve.high)
    )
    safe = curve.safe(margin)
    with drawing(2.2, 1.7) as figure:
        axis = figure.subplots()
        axis.set_yscale("log")
        axis.set_ylim(lowest, 1.0)
        axis.set_yticks([10.0**power for power in (-4, -3, -2, -1)], ["0.0001", "0.001", "0.01", "0.1"])
        axis.minorticks_off()
        axis.set_xlim(0, curve.site.channels)
        axis.fill_between(widths, low, high, color=FILL, alpha=0.25, linewidth=0)
        axis.plot(widths, lost, color=FILL, linewidth=1.4, gid="line")
        axis.axhline(margin, color=INK, linewidth=0.8, linestyle="--")
        axis.axvline(safe, color=INK, linewidth=0.8)
        axis.set_title(f"{curve.site.name}\n{safe} of {curve.site.channels}", fontsize=8)
        axis.tick_params(labelsize=8)
        alt = (
            f"{curve.site.name}: Dice predicted to be lost by width; at {safe} of {curve.site.channels} channels "
            f"{fixed(float(lost[curve.at(safe)]), 4)}."
        )
        return to_picture(figure, f"curve{number}", alt, {"line": alt})
