"""Scatter plots as SVG: one small panel a family, one mark a schedule."""

from __future__ import annotations

import math

WIDTH, HEIGHT, GAP, COLUMNS = 190, 150, 26, 5
COLOURS = ("#1b6ca8", "#c05621", "#2f855a", "#805ad5")


def scatter(kernels: list) -> str:
    """Panels of estimated against measured cost, both relative and logarithmic."""
    families = list(dict.fromkeys(k.family for k in kernels))
    rows = -(-len(families) // COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + 2 * GAP) + GAP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             f'font-family="sans-serif" font-size="11">',
             f'<rect width="{width}" height="{height}" fill="white"/>']  # fmt: skip
    for n, family in enumerate(families):
        x = GAP + n % COLUMNS * (WIDTH + GAP)
        y = GAP + n // COLUMNS * (HEIGHT + 2 * GAP)
        parts.append(f'<g transform="translate({x},{y})">')
        parts += panel(family, [k for k in kernels if k.family == family])
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(family: str, kernels: list) -> list[str]:
    rows = [(points(k), COLOURS[n % len(COLOURS)]) for n, k in enumerate(kernels)]
    every = [p for own, _ in rows for p in own]
    left, right = span([a for a, _ in every])
    low, high = span([b for _, b in every])
    at = lambda a, b: (WIDTH * (a - left) / (right - left),
                       HEIGHT * (1 - (b - low) / (high - low)))  # fmt: skip
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
             f'<text x="0" y="-6">{family}</text>',
             f'<text x="0" y="{HEIGHT + 13}" fill="#666">{math.exp(left):.2g}</text>',
             f'<text x="{WIDTH}" y="{HEIGHT + 13}" fill="#666" text-anchor="end">'
             f'{math.exp(right):.2g}</text>',
             f'<text x="3" y="12" fill="#666">{math.exp(high):.2g}</text>']  # fmt: skip
    for own, colour in rows:
        for a, b in own[1:]:
            u, v = at(a, b)
            parts.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="2" fill="{colour}"/>')
        u, v = at(*own[0])
        parts.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="5" fill="none" stroke="{colour}"/>')
    return parts


def points(kernel) -> list[tuple[float, float]]:
    """(estimated, of the default's; measured, of the least), as logarithms."""
    first, least = kernel.samples[0].cost or 1.0, min(s.seconds for s in kernel.samples)
    return [(math.log(max(s.cost, 1e-9) / first), math.log(s.seconds / least))
            for s in kernel.samples]  # fmt: skip


def span(values: list[float]) -> tuple[float, float]:
    """A little more than the values take."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.1
    return low - room, high + room
