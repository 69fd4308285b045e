"""Query strategies by name: how an image is scored, and how scores become positions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from strategies import acquisition, reduction, selection
from strategies.errors import BadPool, NotScored, UnknownStrategy

Acquisition = Callable[[np.ndarray], np.ndarray]  # draws (N, h, w) → map (h, w)
Reduction = Callable[[np.ndarray, np.ndarray], float]  # map (h, w), mean probability (h, w) → score


@dataclass(frozen=True)
class Pool:
    """The images that may be asked for, as arrays whose first axis is the position; give what the strategy needs.

    scores: (n,) higher = ask sooner. embeddings: (n, D). labelled_embeddings: (m, D), the images that have an
    annotation: another index space, hence another array. groups: (n,) str, patient or video. strata: (n,), a class
    per image. Raises BadPool when lengths disagree.
    """

    scores: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    labelled_embeddings: np.ndarray | None = None
    groups: np.ndarray | None = None
    strata: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(set(self._lengths().values())) != 1:
            found = ", ".join(f"{name}: {length}" for name, length in self._lengths().items()) or "none given"
            raise BadPool(f"scores, embeddings, groups and strata must be of one length, at least one given ({found})")

    def _lengths(self) -> dict[str, int]:
        arrays = {name: getattr(self, name) for name in ("scores", "embeddings", "groups", "strata")}
        return {name: len(array) for name, array in arrays.items() if array is not None}

    @property
    def n(self) -> int:
        """How many images may be asked for."""
        return next(iter(self._lengths().values()))

    def given(self, name: str) -> np.ndarray:
        """The array of that name. Raises BadPool when the pool was made without it."""
        array: np.ndarray | None = getattr(self, name)
        if array is None:
            raise BadPool(f"the pool was given no {name}; this strategy needs them")
        return array


Selection = Callable[[Pool, int, np.random.Generator], np.ndarray]  # → positions (size,) intp, best first


@dataclass(frozen=True)
class Strategy:
    """A query strategy. `needs` names the fields of Pool that must be given; one without scores has no acquisition."""

    name: str
    acquisition: Acquisition | None
    reduction: Reduction | None
    selection: Selection
    needs: frozenset[str]

    def score(self, draws: np.ndarray) -> float:
        """One number for one image, higher = ask sooner. draws: (N, h, w) in [0, 1], model frame.

        Raises BadDraws, and NotScored for a strategy without "scores" in `needs`.
        """
        if self.acquisition is None or self.reduction is None:
            raise NotScored(f'strategy {self.name} scores no images; ask only those with "scores" in needs')
        return self.reduction(self.acquisition(draws), acquisition.mean_probability(draws))

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> np.ndarray:
        """Positions (min(size, n),) intp, best first, unique; ties go to the lower position.

        Raises BadPool when something in `needs` is missing, BadScores naming positions, BadRequest for a negative size.
        """
        for name in sorted(self.needs):
            pool.given(name)
        return self.selection(pool, size, rng)


def get(name: str) -> Strategy:
    """The strategy of that name. Raises UnknownStrategy naming those there are."""
    if name not in _STRATEGIES:
        raise UnknownStrategy(f"no strategy is called {name!r}; there are {', '.join(names())}")
    return _STRATEGIES[name]


def names() -> list[str]:
    """Every registered name, sorted."""
    return sorted(_STRATEGIES)


def _random(pool: Pool, size: int, rng: np.random.Generator) -> np.ndarray:
    return selection.random(pool.n, size, rng)


def _top_k(pool: Pool, size: int, _rng: np.random.Generator) -> np.ndarray:
    return selection.top_k(pool.given("scores"), size)


_STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("random", acquisition=None, reduction=None, selection=_random, needs=frozenset()),
        Strategy(
            "entropy",
            acquisition=acquisition.predictive_entropy,
            reduction=reduction.foreground_boundary,
            selection=_top_k,
            needs=frozenset({"scores"}),
        ),
    )
}
