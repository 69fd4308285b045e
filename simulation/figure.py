"""Figures as SVG, drawn by hand: two kinds are no reason for a plotting library."""

import statistics
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 520, 20, 370
# Okabe and Ito's palette, which the colour-blind can tell apart; a second time round the lines are dashed.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]

Curves = Mapping[str, Sequence[tuple[int, Sequence[float]]]]


def learning_curve(by_strategy: Curves, title: str, reference: float | None = None) -> str:
    """One line per strategy, mean over seeds against labels, with a band of one standard error to either side.

    by_strategy: name → (labels, values, one per seed), ascending in labels. reference: a level to draw, such as that of
    all labels. The axis spans what there is to see. Returns an SVG document.
    """
    labels = sorted({n for curve in by_strategy.values() for n, _ in curve})
    low, high = _span(by_strategy, reference)
    body = [_axes(labels, low, high, title)]
    for number, (name, curve) in enumerate(by_strategy.items()):
        body.append(_series(name, curve, labels, (low, high), number))
    if reference is not None:
        body.append(_reference(reference, low, high))
    return _document(WIDTH, max(HEIGHT, TOP + 40 + 20 * len(by_strategy)), "".join(body))


def penalty_matrix(names: Sequence[str], matrix: np.ndarray, most: int) -> str:
    """Wins of rows against columns, darker where more; `most`: how many there could be. Returns an SVG document."""
    cell, left, top = 44, 150, 140
    body: list[str] = []
    for i, name in enumerate(names):
        x, y = left + cell * i + cell / 2, top + cell * i + cell / 2 + 4
        body.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<text transform="translate({x + 4} {top - 8}) rotate(-60)">{escape(name)}</text>')
        body += [_cell(left + cell * j, top + cell * i, cell, int(matrix[i, j]), most) for j in range(len(names))]
    size = cell * len(names)
    return _document(left + size + 80, top + size + 20, "".join(body))


def _span(by_strategy: Curves, reference: float | None) -> tuple[float, float]:
    """The least and the most of the values, to whole twentieths, so that the axis has round numbers."""
    values = [value for curve in by_strategy.values() for _, each in curve for value in each]
    values += [] if reference is None else [reference]
    return np.floor(min(values) * 20) / 20, max(np.ceil(max(values) * 20), np.floor(min(values) * 20) + 1) / 20


def _x(n: int, labels: Sequence[int]) -> float:
    return LEFT + (RIGHT - LEFT) * (n - labels[0]) / max(1, labels[-1] - labels[0])


def _y(value: float, low: float, high: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)


def _axes(labels: Sequence[int], low: float, high: float, title: str) -> str:
    parts = [f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 40}" text-anchor="middle">labels</text>']
    parts.append(f'<text transform="translate(18 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">')
    parts.append(f"{escape(title)}</text>")
    for value in np.linspace(low, high, 6):
        y = _y(value, low, high)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    parts += [f'<text x="{_x(n, labels):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{n}</text>' for n in labels]
    return "".join(parts)


def _series(
    name: str, curve: Sequence[tuple[int, Sequence[float]]], labels: Sequence[int], span: tuple[float, float], at: int
) -> str:
    colour, y = COLOURS[at % len(COLOURS)], TOP + 14 + 20 * at
    dash = ' stroke-dasharray="6 3"' if at >= len(COLOURS) else ""
    means = [(n, statistics.fmean(values), _error(values)) for n, values in curve]
    band = [(n, mean + error) for n, mean, error in means] + [(n, mean - error) for n, mean, error in reversed(means)]
    line = [(n, mean) for n, mean, _ in means]
    return (
        f'<polygon points="{_points(band, labels, span)}" fill="{colour}" opacity="0.10"/>'
        f'<polyline points="{_points(line, labels, span)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        f'<line x1="{RIGHT + 15}" x2="{RIGHT + 35}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"'
        f"{dash}/>"
        f'<text x="{RIGHT + 40}" y="{y}">{escape(name)}</text>'
    )


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _reference(value: float, low: float, high: float) -> str:
    y = _y(value, low, high)
    return (
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#666" stroke-dasharray="2 4"/>'
        f'<text x="{RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end" fill="#666">all labels</text>'
    )


def _points(values: Sequence[tuple[int, float]], labels: Sequence[int], span: tuple[float, float]) -> str:
    return " ".join(f"{_x(n, labels):.1f},{_y(value, *span):.1f}" for n, value in values)


def _cell(x: float, y: float, size: int, wins: int, most: int) -> str:
    shade = 255 - round(180 * wins / max(1, most))
    return (
        f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="rgb({shade},{shade},255)" stroke="white"/>'
        f'<text x="{x + size / 2}" y="{y + size / 2 + 4}" text-anchor="middle">{wins}</text>'
    )


def _document(width: float, height: float, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>{body}</svg>\n'
    )
