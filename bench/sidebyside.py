"""Several ways side by side over a few sizes, as SVG; logarithmic where they are far apart. `bars.py` draws one way with its spread."""

import math
from collections.abc import Mapping, Sequence

COLOURS = ("#2a7", "#48c", "#c83", "#999")
WIDE, LEFT, RIGHT, LINE, GAP = 760, 240, 70, 15, 10


def side_by_side(
    title: str,
    rows: Mapping[str, Sequence[float | None]],
    ways: Sequence[str],
    *,
    unit: str = "",
    log: bool = False,
    top: float | None = None,
) -> str:
    """
    Args:
        rows: by their names, a value for each of `ways`; None where there is none.
        log: bars begin at a tenth of the smallest value's decade.
        top: end of the axis; else the largest value.
    """
    values = [value for row in rows.values() for value in row if value is not None]
    high = top or max(values)
    low = 10 ** math.floor(math.log10(min(values)) - 0.3) if log else 0.0

    def width(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else value / high
        return max(1.0, share * (WIDE - LEFT - RIGHT))

    tall = 52 + len(rows) * (len(ways) * LINE + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {tall}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{tall}" fill="white"/>',
        f'<text x="12" y="20" font-weight="bold">{title}{", logarithmic" if log else ""}</text>',
    ]
    at = 12
    for way, colour in zip(ways, COLOURS, strict=False):
        out += [
            f'<rect x="{at}" y="30" width="10" height="10" fill="{colour}"/>',
            f'<text x="{at + 15}" y="39">{way}</text>',
        ]
        at += 34 + 7 * len(way)
    y = 52
    for name, row in rows.items():
        middle = y + len(ways) * LINE / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{name}</text>')
        for value, colour in zip(row, COLOURS, strict=False):
            if value is not None:
                out += [
                    f'<rect x="{LEFT}" y="{y}" width="{width(value):.1f}" height="{LINE - 3}" fill="{colour}"/>',
                    f'<text x="{LEFT + width(value) + 5:.1f}" y="{y + 10}" font-size="11">{value:.3g}{unit}</text>',
                ]
            y += LINE
        y += GAP
    return "\n".join([*out, "</svg>"]) + "\n"
