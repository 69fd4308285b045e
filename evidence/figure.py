"""A forecast as SVG, drawn by hand: the rounds, the curve with its band, and the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evidence.forecast import Curve, Fit, predict

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 620, 20, 350
_STEPS = 60
_AHEAD = 3  # times the labels so far
# Okabe and Ito's palette, which the colour-blind can tell apart.
_BLUE, _RED = "#0072b2", "#d55e00"


def forecast_svg(curve: Curve, fitted: Fit, target: float) -> str:
    """An SVG document: measured Dice as points, median and 80 % interval up to three times the labels so far."""
    labels = np.linspace(fitted.start, _AHEAD * fitted.last, _STEPS)
    found = [predict(fitted, float(each)) for each in labels]
    low, high = _range([*curve.dice, target, *(one.low for one in found), *(one.high for one in found)])

    def at(n: float, dice: float) -> str:
        x = _LEFT + (_RIGHT - _LEFT) * (n - labels[0]) / (labels[-1] - labels[0])
        return f"{x:.1f},{_BOTTOM - (_BOTTOM - _TOP) * (dice - low) / (high - low):.1f}"

    band = [at(n, one.high) for n, one in zip(labels, found, strict=True)]
    band += [at(n, one.low) for n, one in zip(labels[::-1], found[::-1], strict=True)]
    line = [at(n, one.median) for n, one in zip(labels, found, strict=True)]
    points = [at(n, dice).split(",") for n, dice in zip(curve.labels, curve.dice, strict=True)]
    parts = [
        _axes(labels, low, high),
        f'<polygon points="{" ".join(band)}" fill="{_BLUE}" opacity="0.15"/>',
        f'<polyline points="{" ".join(line)}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
        f'<polyline points="{at(labels[0], target)} {at(labels[-1], target)}" stroke="{_RED}" stroke-dasharray="6 4"/>',
        *(f'<circle cx="{x}" cy="{y}" r="4" fill="{_BLUE}"/>' for x, y in points),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><title>Held-out Dice: measured, forecast with its 80 % interval, and the target of {target:g}'
        f'</title><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Whole tenths around all values, within [0, 1]."""
    low, high = np.floor(10 * min(values)) / 10, np.ceil(10 * max(values)) / 10
    return (float(low), float(high)) if high > low else (float(low) - 0.1, float(high))


def _axes(labels: np.ndarray, low: float, high: float) -> str:
    parts = [f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">labels</text>']
    for tenths in range(round(10 * low), round(10 * high) + 1):
        y = _BOTTOM - (_BOTTOM - _TOP) * (tenths / 10 - low) / (high - low)
        parts.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tenths / 10}</text>')
    for share in np.linspace(0, 1, 5):
        n = labels[0] + share * (labels[-1] - labels[0])
        x = _LEFT + (_RIGHT - _LEFT) * share
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{n:.0f}</text>')
    return "".join(parts)
