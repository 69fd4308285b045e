"""Adaptive draws: a few for every image of a pool, many only where the query ends.

A query takes the `size` images with the highest score. Whether an image far from the end of it, the cut, belongs to
it is plain after two draws; between images near the cut it takes up to thirty. So the pool climbs rungs of more and
more draws. At each, images far from the cut are settled, in or out, and only those around it climb on.

Three things keep this honest. A score grows with the number of draws (the entropy of a mean does, on average), so
scores are only ever compared at the same rung. All images see the same noise, so that what remains between them is
what they show. And more draws extend the fewer: none is computed twice.

How far around the cut is far enough is measured, not assumed: the move of an image in the ranking from half the draws
to all of them is about as large as the one still to come, since the variance of a mean over N draws about that over
infinitely many is 1/N, and so is its variance about the mean over N/2. What the budget allows is the upper limit, each
rung getting an equal share of it: the wide first rungs take few draws an image, the narrow last ones many.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from model.errors import BadConfig, BadInput

if TYPE_CHECKING:
    from model.segmenter import Picture, Segmenter

SAFETY = 2.0
"""An image at some distance from the cut may still cross it, if one at that distance moved 1/SAFETY of it."""

Draw = Callable[[Sequence[int], range], Iterable[NDArray[Any]]]
"""Positions and numbers of draws → for each position, in order, an array whose first axis is the draws."""

Score = Callable[[NDArray[Any]], float]
"""The draws of one image → its score, higher = ask sooner."""


@dataclass(frozen=True)
class DrawPlan:
    """How many draws an image may have, and how many passes an image the pool may cost on average.

    rungs: ascending numbers of draws; everybody gets the first. memory_bytes: draws beyond it wait in a temporary
    file for their image to climb on.
    """

    rungs: tuple[int, ...] = (2, 3, 5, 8, 12, 18, 30)
    passes_per_image: float = 6.0
    memory_bytes: int = 2**30

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be followed."""
        if not self.rungs or self.rungs[0] < 1 or list(self.rungs) != sorted(set(self.rungs)):
            raise BadConfig(f"rungs must be ascending numbers of draws from 1, not {self.rungs!r}")
        if not self.passes_per_image >= self.rungs[0]:
            raise BadConfig(
                f"passes_per_image is {self.passes_per_image!r}, but the first rung alone takes {self.rungs[0]}; "
                "raise the one or lower the other"
            )
        if self.memory_bytes < 1:
            raise BadConfig(f"memory_bytes must be at least 1, not {self.memory_bytes}")


DEFAULT_PLAN = DrawPlan()


@dataclass(frozen=True)
class Ranking:
    """A ranked pool of n images; the query is `order[:size]`.

    order: (n,) intp, positions, best first. scores: (n,) float64, the last score of each position, to be compared only
    where n_draws, (n,) int64, agrees. passes: how many rows went through the network in all, the sum of n_draws.
    """

    order: NDArray[np.intp]
    scores: NDArray[np.float64]
    n_draws: NDArray[np.int64]
    passes: int


def rank_pool(
    segmenter: Segmenter,
    load: Callable[[int], Picture],
    n: int,
    size: int,
    score: Score,
    seed: int = 0,
    plan: DrawPlan = DEFAULT_PLAN,
    on_progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Rank the pool of positions 0 … n - 1 for a query of `size` images.

    load: position → image and its prompts, asked for again at each rung so that the pool need not fit in memory.
    score: draws (N, h, w) in [0, 1] → higher = ask sooner; of several prompts the highest counts. on_progress hears
    the passes done and the most there can be. Raises BadInput, and what `load` and `score` raise.
    """

    def draw(positions: Sequence[int], draws: range) -> Iterable[NDArray[np.float32]]:
        return segmenter.draw((load(position) for position in positions), len(draws), seed, draws.start)

    def highest(draws: NDArray[np.float32]) -> float:
        return max(score(draws[:, prompt]) for prompt in range(draws.shape[1]))

    return rank_adaptively(n, size, draw, highest, plan, on_progress)


def rank_adaptively(
    n: int,
    size: int,
    draw: Draw,
    score: Score,
    plan: DrawPlan = DEFAULT_PLAN,
    on_progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """As `rank_pool`, for draws of any kind. Ties go to the lower position. Raises BadInput for a score that is not
    finite, naming the position."""
    if n < 0 or size < 0:
        raise BadInput(f"a pool of {n} and a query of {size} images cannot be; give 0 or more")
    with _Climb(n, draw, score, plan, on_progress) as climb:
        return climb.to_the_top(size)


@dataclass(frozen=True)
class _Band:
    """Images not settled yet, best first as far as known, and how many of them belong into the query."""

    positions: NDArray[np.intp]
    n_in: int

    def distances(self) -> NDArray[np.float64]:
        """How many ranks each is from the cut, halves: the last in and the first out are both 0.5 away."""
        return np.abs(np.arange(len(self.positions)) + 0.5 - self.n_in)


class _Climb:
    """One pool on its way up the rungs."""

    def __init__(
        self, n: int, draw: Draw, score: Score, plan: DrawPlan, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self._draw, self._score, self._plan, self._on_progress = draw, score, plan, on_progress
        self._scores, self._halfway = np.zeros(n), np.zeros(n)
        self._n_draws = np.zeros(n, np.int64)
        self._budget = max(math.floor(plan.passes_per_image * n), plan.rungs[0] * n)
        self._kept = _Shelf(plan.memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def to_the_top(self, size: int) -> Ranking:
        """Rung after rung, until nobody is near the cut any more."""
        n, rungs = len(self._scores), self._plan.rungs
        band = _Band(np.arange(n), min(size, n))
        ins: list[NDArray[np.intp]] = []
        outs: list[NDArray[np.intp]] = []
        for k, rung in enumerate(rungs):
            self._bring_to(rung, band.positions)
            band, reach = self._ranked(band)
            # Without anything to separate, at the top or out of budget, nobody climbs on.
            separates = 0 < band.n_in < len(band.positions)
            share = (self._budget - self.passes) // (len(rungs) - 1 - k) if k + 1 < len(rungs) else 0
            room = share // (rungs[k + 1] - rung) if separates and share > 0 else 0
            top, band, bottom = _split(band, reach, room)
            ins.append(top)
            outs.append(bottom)
            if not len(band.positions):
                break
        order = np.concatenate([*ins, *outs[::-1]])
        return Ranking(order, self._scores, self._n_draws, self.passes)

    @property
    def passes(self) -> int:
        """Rows computed so far."""
        return int(self._n_draws.sum())

    def _bring_to(self, rung: int, positions: NDArray[np.intp]) -> None:
        """Compute what these images lack of `rung` draws, and score them, also by the first half of the draws."""
        below, self._kept = self._kept, _Shelf(self._plan.memory_bytes)
        with closing(below):
            climbing = [int(position) for position in np.sort(positions)]
            first = int(self._n_draws[climbing[0]]) if climbing else 0
            for position, new in zip(climbing, self._draw(climbing, range(first, rung)), strict=True):
                draws = np.concatenate([below.get(position), new]) if first else new
                self._note(position, draws, rung)
                self._kept.put(position, draws)

    def _note(self, position: int, draws: NDArray[Any], rung: int) -> None:
        """Write down what the draws of one image say."""
        if len(draws) != rung:
            raise BadInput(f"position {position} has {len(draws)} draws and should have {rung}; check what draws them")
        self._scores[position] = self._scored(position, draws)
        self._halfway[position] = self._scored(position, draws[: rung // 2]) if rung > 1 else 0.0
        self._n_draws[position] = rung
        if self._on_progress:
            self._on_progress(self.passes, self._budget)

    def _scored(self, position: int, draws: NDArray[Any]) -> float:
        score = float(self._score(draws))
        if not math.isfinite(score):
            raise BadInput(f"the score of position {position} is {score}; check that image and the strategy")
        return score

    def _ranked(self, band: _Band) -> tuple[_Band, float]:
        """The band in the order of this rung, and the distance from the cut within which images may still cross it."""
        before = _order(self._halfway, band.positions)
        after = _order(self._scores, band.positions)
        rank = np.empty(len(self._scores), np.intp)
        rank[after] = np.arange(len(after))
        moved = np.abs(rank[before] - np.arange(len(before)))
        distances = _Band(before, band.n_in).distances()
        reach = distances[moved * SAFETY >= distances].max(initial=0.0) + 1
        return _Band(after, band.n_in), reach


def _order(scores: NDArray[np.float64], positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """The positions, highest score first, ties to the lower position."""
    ascending = np.sort(positions)
    return ascending[np.argsort(-scores[ascending], kind="stable")]


def _split(band: _Band, reach: float, room: int) -> tuple[NDArray[np.intp], _Band, NDArray[np.intp]]:
    """Settled in; the at most `room` nearest to the cut and within `reach` of it; settled out."""
    distances = band.distances()
    n_near = min(room, int((distances <= reach).sum()))
    near = np.sort(np.argsort(distances, kind="stable")[:n_near])
    start, stop = (near[0], near[-1] + 1) if n_near else (band.n_in, band.n_in)
    middle = _Band(band.positions[start:stop], band.n_in - int(start))
    return band.positions[:start], middle, band.positions[stop:]


class _Shelf:
    """Draws of the images of one rung, which may climb on; above the memory limit they wait in a temporary file."""

    def __init__(self, memory_bytes: int) -> None:
        # It stays open from one rung to the end of the next.
        self._file = tempfile.SpooledTemporaryFile(memory_bytes)  # noqa: SIM115
        self._places: dict[int, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def close(self) -> None:
        """Forget everything."""
        self._file.close()

    def put(self, position: int, draws: NDArray[Any]) -> None:
        """Keep the draws of a position."""
        self._places[position] = self._file.seek(0, 2), draws.shape, draws.dtype
        self._file.write(draws.tobytes())

    def get(self, position: int) -> NDArray[Any]:
        """The draws of a position, bit for bit."""
        place, shape, dtype = self._places[position]
        self._file.seek(place)
        return np.frombuffer(self._file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
