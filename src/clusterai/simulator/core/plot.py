"""A bar for each strategy, with two standard errors, left of zero where honesty wins: an SVG without any library."""

from clusterai.simulator.core.report import Report

WIDTH, LABEL, BAR, TOP = 720, 170, 26, 54


def plot(report: Report) -> str:
    rows = [row for row in report.rows if row.strategy != "honest"]
    reach = max((abs(row.extra) + 2 * row.error for row in rows), default=1.0) or 1.0
    middle, scale = LABEL + (WIDTH - LABEL - 20) / 2, (WIDTH - LABEL - 20) / 2 / reach
    height = TOP + BAR * len(rows) + 34
    title = f"{escaped(report.scenario)}: profit over honest, {report.seeds} seeds"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="20" font-size="14" fill="#111111">{title}</text>',
        '<text x="12" y="38" fill="#555555">in prices of a lease per operator; whiskers are two standard errors</text>',
    ]
    for at, row in enumerate(rows):
        y = TOP + BAR * at
        end = middle + row.extra * scale
        left, width = min(middle, end), abs(end - middle)
        colour = "#2a7f62" if row.deterred else "#c0392b"
        low, high = (middle + (row.extra + sign * 2 * row.error) * scale for sign in (-1, 1))
        out += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end" fill="#111111">{escaped(row.strategy)}</text>',
            f'<rect x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="{BAR - 9}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {y + 11}H{high:.1f}" stroke="#111111" fill="none"/>',
            f'<text x="{WIDTH - 14}" y="{y + 15}" text-anchor="end" fill="#111111">{row.extra:+.2f}</text>',
        ]
    bottom = TOP + BAR * len(rows)
    out += [
        f'<path d="M{middle:.1f} {TOP - 4}V{bottom}" stroke="#555555"/>',
        f'<text x="{middle:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555555">honest</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
