"""A learning curve as SVG, drawn by hand: one figure is no reason for a plotting library."""

import statistics
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 480, 20, 350
# Okabe and Ito's palette, which the colour-blind can tell apart.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]

Curves = Mapping[str, Sequence[tuple[int, Sequence[float]]]]


def learning_curve(by_strategy: Curves, title: str) -> str:
    """One line per strategy, mean over seeds against labels, with a band from the lowest to the highest seed.

    by_strategy: name → (labels, values in [0, 1], one per seed), ascending in labels. Returns an SVG document.
    """
    labels = sorted({n for curve in by_strategy.values() for n, _ in curve})
    body = [_axes(labels, title)]
    for number, (name, curve) in enumerate(by_strategy.items()):
        body.append(_series(name, curve, labels, number))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(body)}</svg>\n'
    )


def _x(n: int, labels: Sequence[int]) -> float:
    return LEFT + (RIGHT - LEFT) * (n - labels[0]) / max(1, labels[-1] - labels[0])


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _axes(labels: Sequence[int], title: str) -> str:
    parts = [f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">labels</text>']
    parts.append(f'<text transform="translate(16 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">')
    parts.append(f"{escape(title)}</text>")
    for tenths in range(0, 11, 2):
        y = _y(tenths / 10)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tenths / 10}</text>')
    parts += [f'<text x="{_x(n, labels):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{n}</text>' for n in labels]
    return "".join(parts)


def _series(name: str, curve: Sequence[tuple[int, Sequence[float]]], labels: Sequence[int], number: int) -> str:
    colour, y = COLOURS[number % len(COLOURS)], TOP + 14 + 20 * number
    means = [(n, statistics.fmean(values)) for n, values in curve]
    band = [(n, max(values)) for n, values in curve] + [(n, min(values)) for n, values in reversed(curve)]
    return (
        f'<polygon points="{_points(band, labels)}" fill="{colour}" opacity="0.15"/>'
        f'<polyline points="{_points(means, labels)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<line x1="{RIGHT + 15}" x2="{RIGHT + 35}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{RIGHT + 40}" y="{y}">{escape(name)}</text>'
    )


def _points(values: Sequence[tuple[int, float]], labels: Sequence[int]) -> str:
    return " ".join(f"{_x(n, labels):.1f},{_y(value):.1f}" for n, value in values)
