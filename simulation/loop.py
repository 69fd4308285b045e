"""Active learning with a perfect oracle: train → evaluate → select → label, with production's strategies and training.

One *arm* is one strategy with one seed. Everything that chance decides apart from the strategy (held-out set, seed
set, starting weights, order of training) is the same for all arms of a seed, so arms differ by what was asked only.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

import strategies
from simulation.dataset import Pair, digest
from simulation.errors import BadPlan
from strategies import Pool, Strategy

M = TypeVar("M")

RANDOM, FOREGROUND_RANDOM = BASELINES = ("random", "foreground_random")
"""What the others have to beat; they get no random arm beside them, being chance themselves."""
ALL = "all labels"
"""The arm that trains once on the whole pool: what the others could reach."""


@dataclass(frozen=True)
class Plan:
    """How one arm goes: seed_size labels, then `rounds` times query_size more; train and evaluate at each count.

    random_share: of each query, drawn uniformly whatever the strategy says, as production does for its control.
    """

    rounds: int
    query_size: int
    seed_size: int
    held_out_share: float
    random_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing. Raises BadPlan."""
        if self.rounds < 0 or self.query_size < 1 or self.seed_size < 1:
            raise BadPlan("rounds must be at least 0, query size and seed size at least 1")
        if not 0.0 < self.held_out_share < 1.0:
            raise BadPlan(f"held-out share is {self.held_out_share}; it must lie between 0 and 1")
        if not 0.0 <= self.random_share < 1.0:
            raise BadPlan(f"random share is {self.random_share}; it must be at least 0 and below 1")

    def n_labels(self, round_number: int) -> int:
        """Labels that train in that round; round 0 has the seed set."""
        return self.seed_size + round_number * self.query_size


class Seen(Protocol):
    """What one image tells the strategies: draws (N, h, w) in [0, 1], embedding (D,). model.Segmentation is one."""

    @property
    def draws(self) -> np.ndarray: ...
    @property
    def embedding(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Judged:
    """One held-out image: Dice of what an annotator would be shown, and how sure the model was of it, in [0, 1]."""

    id: str
    dice: float
    confidence: float


@dataclass(frozen=True)
class Quality:
    """Over the held-out set, each in [0, 1]: mean Dice and NSD, calibration error, area under the risk–coverage curve.

    images: the same image by image, in the order of the set.
    """

    dice: float
    nsd: float
    ece: float
    aurc: float
    images: tuple[Judged, ...] = ()


class Learner(Protocol[M]):
    """The model as the loop sees it. Each training starts from the weights of its seed, never from the last round's."""

    def train(self, pairs: Sequence[Pair], seed: int) -> tuple[M, int]:
        """A model trained on the pairs, and the optimiser steps that took."""

    def evaluate(self, model: M, pairs: Sequence[Pair]) -> Quality:
        """How well the model does on the pairs."""

    def segment(self, model: M, pairs: Sequence[Pair], seed: int) -> Iterator[Seen]:
        """What the model sees in each image, in the order of the pairs; masks stay unread."""


@dataclass(frozen=True)
class Outcome:
    """One round of one arm: a row of results.csv. seconds is the wall-clock time of the whole round."""

    strategy: str
    seed: int
    round: int
    n_labels: int
    dice: float
    nsd: float
    ece: float
    aurc: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class Asked:
    """One image of a query: who asked for it, the strategy or the random arm."""

    id: str
    by_chance: bool


@dataclass(frozen=True)
class Record:
    """A finished round: its row, its held-out images, and what was asked for next (nothing in the last round)."""

    outcome: Outcome
    images: tuple[Judged, ...]
    asked: tuple[Asked, ...]


def held_out_split(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(pool, held out). Whole groups in the order of the hash of their name, until `share` of the images is held out.

    No group straddles, and the answer depends on nothing but the folder. Production compares each hash with the share
    instead, because its images keep arriving; with few groups that may hold out nothing. Raises BadPlan when nothing
    would be left to label.
    """
    held_out: set[str] = set()
    count = 0
    for group in sorted({pair.group for pair in pairs}, key=digest):
        if count >= share * len(pairs):
            break
        held_out.add(group)
        count += sum(pair.group == group for pair in pairs)
    pool = [pair for pair in pairs if pair.group not in held_out]
    if not pool:
        raise BadPlan(
            f"a held-out share of {share} leaves no group to label; lower it, or give the images more than one group"
        )
    return pool, [pair for pair in pairs if pair.group in held_out]


def check(plan: Plan, n_pool: int) -> None:
    """Raises BadPlan when the pool is too small for every round to get its labels: budgets would not be equal."""
    wanted = plan.n_labels(plan.rounds)
    if wanted > n_pool:
        raise BadPlan(
            f"the plan asks for {wanted} labels ({plan.seed_size} + {plan.rounds} x {plan.query_size}), "
            f"but only {n_pool} images are not held out; lower rounds, query size, seed size or held-out share"
        )


@dataclass(frozen=True)
class Arm(Generic[M]):
    """One strategy with one seed, on a fixed pool and held-out set."""

    strategy: Strategy
    seed: int
    plan: Plan
    learner: Learner[M]
    pool: Sequence[Pair]
    held_out: Sequence[Pair]

    def run(self, earlier: Iterable[Record] = ()) -> Iterator[Record]:
        """The records of the rounds that are not among the earlier ones, as each is done. Raises BadPlan at once."""
        check(self.plan, len(self.pool))
        labelled, first = self._labelled_after(earlier)
        for number in range(first, self.plan.rounds + 1):
            start = time.monotonic()
            model, steps = self.learner.train([self.pool[i] for i in labelled], self.seed)
            quality = self.learner.evaluate(model, self.held_out)
            last = number == self.plan.rounds
            query, by_chance = (labelled[:0], labelled[:0]) if last else self._query(model, labelled, number)
            outcome = Outcome(
                self.strategy.name, self.seed, number, len(labelled), quality.dice, quality.nsd, quality.ece,
                quality.aurc, time.monotonic() - start, steps,
            )  # fmt: skip
            chance = set(by_chance.tolist())
            yield Record(outcome, quality.images, tuple(Asked(self.pool[i].id, int(i) in chance) for i in query))
            labelled = np.concatenate([labelled, query])

    def _labelled_after(self, earlier: Iterable[Record]) -> tuple[np.ndarray, int]:
        """Positions that have a label after the earlier rounds, and the number of the round that follows."""
        positions = {pair.id: i for i, pair in enumerate(self.pool)}
        done = list(earlier)
        asked = np.array([positions[each.id] for record in done for each in record.asked], dtype=np.intp)
        return np.concatenate([seed_set(len(self.pool), self.plan.seed_size, self.seed), asked]), len(done)

    def _query(self, model: M, labelled: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the pool that are asked for next, none labelled yet, and those of them that chance chose."""
        unlabelled = np.setdiff1d(np.arange(len(self.pool)), labelled)
        size, rng = self.plan.query_size, np.random.default_rng([self.seed, 1 + number])
        arrays = self._arrays(model, unlabelled, labelled)
        asked = self.strategy.select(arrays, size, rng, round_number=number).tolist()
        share = 0.0 if self.strategy.name in BASELINES else self.plan.random_share
        by_chance = np.random.default_rng([self.seed, 1 + number, 1]).permutation(len(unlabelled))
        drawn = by_chance[: int(share * size + 0.5)].tolist()
        query = strategies.interleave([at for at in asked if at not in drawn], drawn, share)[:size]
        return unlabelled[query], unlabelled[[at for at in query if at in drawn]]

    def _arrays(self, model: M, unlabelled: np.ndarray, labelled: np.ndarray) -> Pool:
        """Only what the strategy needs is computed; a random arm looks at no image."""
        needs, groups = self.strategy.needs, np.array([self.pool[i].group for i in unlabelled], dtype=str)
        scores: list[float] = []
        embeddings: list[np.ndarray] = []
        strata: list[int] = []
        if needs & {"scores", "embeddings", "strata"}:
            for seen in self._seen(model, unlabelled):
                embeddings.append(seen.embedding)
                strata.append(0 if (seen.draws.mean(0) >= 0.5).any() else -1)
                if "scores" in needs:
                    scores.append(self.strategy.score(seen.draws))
        known = [seen.embedding for seen in self._seen(model, labelled)] if "labelled_embeddings" in needs else []
        return Pool(
            scores=np.array(scores) if "scores" in needs else None,
            embeddings=np.array(embeddings) if "embeddings" in needs else None,
            labelled_embeddings=np.array(known) if "labelled_embeddings" in needs else None,
            strata=np.array(strata, dtype=int) if "strata" in needs else None,
            groups=groups,
        )

    def _seen(self, model: M, positions: np.ndarray) -> Iterator[Seen]:
        return self.learner.segment(model, [self.pool[i] for i in positions], self.seed)


def with_all_labels(learner: Learner[M], seed: int, pool: Sequence[Pair], held_out: Sequence[Pair]) -> Record:
    """Train once on the whole pool, in as many steps as any round has: what every arm could reach at most."""
    start = time.monotonic()
    model, steps = learner.train(pool, seed)
    quality = learner.evaluate(model, held_out)
    outcome = Outcome(
        ALL, seed, 0, len(pool), quality.dice, quality.nsd, quality.ece, quality.aurc, time.monotonic() - start, steps
    )
    return Record(outcome, quality.images, ())


def seed_set(n: int, size: int, seed: int) -> np.ndarray:
    """The first labels, uniform; the same for every strategy of a seed."""
    return np.random.default_rng([seed, 0]).permutation(n)[:size]
