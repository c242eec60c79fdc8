"""Bars with their spread, as the benches draw them: SVG by hand, a dozen lines and no library."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

WIDE, LEFT, LINE = 720, 190, 24


class Bar(msgspec.Struct, frozen=True):
    """`least` to `most` is drawn as a line over it. A bar without a value is a heading."""

    name: str
    value: float | None = None
    least: float = 0.0
    most: float = 0.0
    said: str = ""
    """behind it"""


def bars(given: Sequence[Bar], caption: str) -> str:
    values = [it for bar in given if bar.value is not None for it in (bar.value, bar.least, bar.most)]
    low, high = min(0.0, *values), max(0.0, *values)
    unit = (WIDE - LEFT - 120) / (high - low or 1.0)
    zero, tall = LEFT - low * unit, 30 + LINE * len(given)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {tall}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{tall}" fill="white"/>',
        f'<line x1="{zero:.1f}" y1="6" x2="{zero:.1f}" y2="{tall - 22}" stroke="#444"/>',
    ]
    for at, bar in enumerate(given):
        y = 8 + LINE * at
        if bar.value is None:
            out.append(f'<text x="8" y="{y + 13}" font-weight="bold">{escape(bar.name)}</text>')
            continue
        start, end = sorted((zero, zero + bar.value * unit))
        colour = "#2a7" if bar.value > 0 else "#c43"
        out += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="16" fill="{colour}"/>',
            f'<line x1="{zero + bar.least * unit:.1f}" x2="{zero + bar.most * unit:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="#000"/>',
            f'<text x="{max(end, zero + bar.most * unit) + 6:.1f}" y="{y + 13}">{escape(bar.said)}</text>',
        ]
    out.append(f'<text x="8" y="{tall - 6}">{escape(caption)}</text></svg>')
    return "\n".join(out) + "\n"


def draw(path: Path | None, given: Sequence[Bar], caption: str) -> None:
    """Nothing without a path."""
    if path is not None:
        path.write_text(bars(given, caption))
