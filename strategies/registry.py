"""Query strategies by name: how an image is scored, and how scores become positions."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from strategies import acquisition, chance, coverage, hybrid, power, reduction, selection, typicality
from strategies.errors import BadPool, BadRequest, NotScored, UnknownStrategy
from strategies.strata import Empty

DEFAULT = "hybrid"

Acquisition = Callable[[np.ndarray], np.ndarray]  # draws (N, h, w) → map (h, w)
Reduction = Callable[[np.ndarray, np.ndarray], float]  # map (h, w), mean probability (h, w) → score


@dataclass(frozen=True)
class Pool:
    """The images that may be asked for, as arrays whose first axis is the position; give what the strategy needs.

    scores: (n,) higher = ask sooner. embeddings: (n, D). labelled_embeddings: (m, D), the images that have an
    annotation: another index space, hence another array; none yet is (0, D). groups: (n,) str, patient or video.
    strata: (n,) int, the class of each image, -1 where the model predicts no foreground. Raises BadPool when lengths
    disagree.
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


class Selection(Protocol):
    """Pool, size, chance and how many queries there were → positions (min(size, n),) intp, best first."""

    def __call__(self, pool: Pool, size: int, rng: np.random.Generator, round_number: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Strategy:
    """A query strategy. `needs` names the fields of Pool that must be given; one without scores has no acquisition."""

    name: str
    acquisition: Acquisition | None
    reduction: Reduction | None
    selection: Selection
    needs: frozenset[str]

    @property
    def uncertainty(self) -> str | None:
        """What its scores measure, "entropy" or "mutual information"; None for a strategy that looks at no score."""
        return None if self.acquisition is None else _UNCERTAINTIES[self.acquisition]

    def score(self, draws: np.ndarray) -> float:
        """One number for one image, higher = ask sooner. draws: (N, h, w) in [0, 1], model frame.

        Raises BadDraws, and NotScored for a strategy without "scores" in `needs`.
        """
        if self.acquisition is None or self.reduction is None:
            raise NotScored(f'strategy {self.name} scores no images; ask only those with "scores" in needs')
        return self.reduction(self.acquisition(draws), acquisition.mean_probability(draws))

    def select(self, pool: Pool, size: int, rng: np.random.Generator, *, round_number: int = 0) -> np.ndarray:
        """Positions (min(size, n),) intp, best first, unique; ties go to the lower position unless chance breaks them.

        round_number counts the queries so far: 0 while nothing, or only a seed set, was asked for. Raises BadPool when
        something in `needs` is missing or broken, BadScores naming positions, BadRequest for a negative size.
        """
        for name in sorted(self.needs):
            pool.given(name)
        return self.selection(pool, size, rng, round_number)

    def having(self, **settings: object) -> "Strategy":
        """The same strategy with other settings of its selection: get("clasp_pe").having(empty="last")."""
        return replace(self, selection=partial(self.selection, **settings))


def get(name: str) -> Strategy:
    """The strategy of that name; "hybrid:empty=last:group_share=0.2" is one with other settings, and its own name.

    Raises UnknownStrategy naming those there are, and BadRequest for a setting that it has not or a value of no use.
    """
    base, *given = name.split(":")
    if base not in _STRATEGIES:
        raise UnknownStrategy(f"no strategy is called {base!r}; there are {', '.join(names())}")
    strategy = _STRATEGIES[base]
    return replace(strategy.having(**_settings(strategy, given)), name=name) if given else strategy


def names() -> list[str]:
    """Every registered name, sorted."""
    return sorted(_STRATEGIES)


_UNCERTAINTIES: dict[Acquisition, str] = {
    acquisition.predictive_entropy: "entropy",
    acquisition.bald: "mutual information",
}


def _settings(strategy: Strategy, given: Sequence[str]) -> dict[str, float | str]:
    """Settings out of "name=value"; tried at once, since a round would be a bad time to find out."""
    parameters = inspect.signature(strategy.selection).parameters.values()
    known = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    settings: dict[str, float | str] = {}
    for setting in given:
        name, _, value = setting.partition("=")
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise BadRequest(f"strategy {strategy.name} has no setting {name!r}; {there}")
        settings[name] = _number_or_word(value)
    try:
        strategy.having(**settings).select(_TRIAL, 1, np.random.default_rng(0), round_number=1)
    except TypeError as error:
        raise BadRequest(f"strategy {strategy.name} cannot be set to {', '.join(given)}: {error}") from error
    return settings


def _number_or_word(value: str) -> float | str:
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(value)
    return value


_TRIAL = Pool(np.ones(2), np.eye(2), np.eye(2)[:1], np.array(["a", "b"]), np.array([0, -1]))


# ------------------------------------------------------------------------------- selections, taking what they need
def _random(pool: Pool, size: int, rng: np.random.Generator, _round: int) -> np.ndarray:
    return chance.random(pool.n, size, rng, groups=pool.groups)


def _foreground_random(pool: Pool, size: int, rng: np.random.Generator, _round: int) -> np.ndarray:
    return chance.foreground_random(pool.given("strata"), size, rng, groups=pool.groups)


def _top_k(pool: Pool, size: int, _rng: np.random.Generator, _round: int) -> np.ndarray:
    return selection.top_k(pool.given("scores"), size)


def _stochastic_batches(
    pool: Pool, size: int, rng: np.random.Generator, _round: int, *, batches: int = 100
) -> np.ndarray:
    return selection.stochastic_batches(pool.given("scores"), size, rng, batches=batches)


def _power(
    pool: Pool, size: int, rng: np.random.Generator, round_number: int, *, beta: float | None = None
) -> np.ndarray:
    beta = power.decayed_beta(round_number) if beta is None else beta
    return power.power(pool.given("scores"), size, rng, beta=beta)


def _clasp_pe(
    pool: Pool,
    size: int,
    rng: np.random.Generator,
    round_number: int,
    *,
    beta: float | None = None,
    empty: Empty = "low",
) -> np.ndarray:
    beta = power.decayed_beta(round_number) if beta is None else beta
    return power.clasp_pe(pool.given("scores"), pool.given("strata"), size, rng, beta=beta, empty=empty)


def _core_set(pool: Pool, size: int, _rng: np.random.Generator, _round: int) -> np.ndarray:
    return coverage.k_center_greedy(pool.given("embeddings"), pool.given("labelled_embeddings"), size)


def _typiclust(pool: Pool, size: int, rng: np.random.Generator, _round: int) -> np.ndarray:
    return typicality.typiclust(pool.given("embeddings"), pool.given("labelled_embeddings"), size, rng)


def _badge(pool: Pool, size: int, rng: np.random.Generator, _round: int) -> np.ndarray:
    return coverage.badge(pool.given("embeddings"), pool.given("scores"), size, rng)


def _hybrid(
    pool: Pool,
    size: int,
    rng: np.random.Generator,
    round_number: int,
    *,
    empty: Empty = "low",
    group_share: float = hybrid.GROUP_SHARE,
    near_duplicate: float = hybrid.NEAR_DUPLICATE,
) -> np.ndarray:
    return hybrid.hybrid(
        pool.given("scores"),
        pool.given("embeddings"),
        pool.given("labelled_embeddings"),
        pool.given("strata"),
        size,
        rng,
        groups=pool.groups,
        round_number=round_number,
        empty=empty,
        group_share=group_share,
        near_duplicate=near_duplicate,
    )


def _scoring(name: str, of: Acquisition, select: Selection, *also: str) -> Strategy:
    """A strategy that ranks by scores, taken over the region of interest, per area."""
    return Strategy(name, of, reduction.foreground_boundary, select, frozenset({"scores", *also}))


def _blind(name: str, select: Selection, *needs: str) -> Strategy:
    """A strategy that looks at no score."""
    return Strategy(name, None, None, select, frozenset(needs))


_STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        _blind("random", _random),
        _blind("foreground_random", _foreground_random, "strata"),
        _scoring("entropy", acquisition.predictive_entropy, _top_k),
        _scoring("bald", acquisition.bald, _top_k),
        _scoring("power_bald", acquisition.bald, _power),
        _scoring("clasp_pe", acquisition.predictive_entropy, _clasp_pe, "strata"),
        _blind("core_set", _core_set, "embeddings", "labelled_embeddings"),
        _blind("typiclust", _typiclust, "embeddings", "labelled_embeddings"),
        _scoring("badge", acquisition.predictive_entropy, _badge, "embeddings"),
        _scoring("stochastic_batches", acquisition.predictive_entropy, _stochastic_batches),
        _scoring("hybrid", acquisition.predictive_entropy, _hybrid, "embeddings", "labelled_embeddings", "strata"),
    )
}
