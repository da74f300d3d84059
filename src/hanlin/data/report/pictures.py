"""Bars as SVG: text that stays text, in whatever script, and needs no font of ours."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Paul Tol: told apart by all
WIDTH, ROW, LABEL, HEIGHT = 720, 24, 110, 200


def bars(values: Mapping[str, int], what: str) -> str:
    """Return a horizontal bar for each name, the share beside it."""
    total, most = max(1, sum(values.values())), max([1, *values.values()])
    lines = []
    for number, (name, value) in enumerate(values.items()):
        top, long = number * ROW, (WIDTH - LABEL - 180) * value / most
        lines.append(f'<text x="0" y="{top + 16}">{escape(name)}</text>')
        lines.append(
            f'<rect x="{LABEL}" y="{top + 3}" width="{max(long, 1):.1f}" height="16" fill="{_colour(number)}"/>'
        )
        lines.append(f'<text x="{LABEL + long + 6:.1f}" y="{top + 16}">{value:,} ({value / total:.1%})</text>')
    return _svg(lines, ROW * max(1, len(values)), what)


def histogram(groups: Mapping[str, Mapping[int, int]], what: str) -> str:
    """Return upright bars for powers of two, the groups of one power on top of each other."""
    powers = sorted({power for each in groups.values() for power in each})
    if not powers:
        return _svg([], ROW, what)
    shown = range(powers[0], powers[-1] + 1)
    most = max(sum(each.get(power, 0) for each in groups.values()) for power in shown)
    wide = WIDTH / len(shown)
    lines = []
    for column, power in enumerate(shown):
        top = float(HEIGHT)
        for number, each in enumerate(groups.values()):
            high = (HEIGHT - 30) * each.get(power, 0) / most
            top -= high
            if high:
                place = f'x="{column * wide + 2:.1f}" y="{top:.1f}" width="{wide - 4:.1f}" height="{high:.1f}"'
                lines.append(f'<rect {place} fill="{_colour(number)}"/>')
        count = sum(each.get(power, 0) for each in groups.values())
        middle = f'x="{(column + 0.5) * wide:.1f}" text-anchor="middle" font-size="11"'
        lines.append(f'<text {middle} y="{top - 4:.1f}">{count:,}</text>')
        lines.append(f'<text {middle} y="{HEIGHT + 16}">{_bytes(power)}</text>')
    for number, name in enumerate(groups):
        place = f'x="{number * 100}" y="{HEIGHT + 40}"'
        lines.append(f'<text {place} font-size="13"><tspan fill="{_colour(number)}">■</tspan> {escape(name)}</text>')
    return _svg(lines, HEIGHT + 50, what)


def _bytes(power: int) -> str:
    """Return a power of two as people write bytes."""
    unit, rest = divmod(power, 10)
    return f"{1 << rest}{('', 'K', 'M', 'G', 'T')[min(unit, 4)]}"


def _colour(number: int) -> str:
    """Return a colour; those after the last look like the last."""
    return COLOURS[min(number, len(COLOURS) - 1)]


def _svg(lines: list[str], height: float, what: str) -> str:
    """Return the picture."""
    shape = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(what)}" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {shape}>{"".join(lines)}</svg>'
