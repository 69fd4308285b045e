"""Active learning with a perfect oracle: train → evaluate → select → label, with production's strategies and training.

One *arm* is one strategy with one seed. Everything that chance decides apart from the strategy (held-out set, seed
set, starting weights, order of training) is the same for all arms of a seed, so arms differ by what was asked only.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from simulation.dataset import Pair
from simulation.errors import BadPlan
from strategies import Pool, Strategy

M = TypeVar("M")


@dataclass(frozen=True)
class Plan:
    """How one arm goes: seed_size labels, then `rounds` times query_size more; train and evaluate at each count."""

    rounds: int
    query_size: int
    seed_size: int
    held_out_share: float

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing. Raises BadPlan."""
        if self.rounds < 0 or self.query_size < 1 or self.seed_size < 1:
            raise BadPlan("rounds must be at least 0, query size and seed size at least 1")
        if not 0.0 < self.held_out_share < 1.0:
            raise BadPlan(f"held-out share is {self.held_out_share}; it must lie between 0 and 1")

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
class Quality:
    """Means over the held-out set, each in [0, 1]."""

    dice: float
    nsd: float


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
    seconds: float
    steps: int


def held_out_split(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(pool, held out). Whole groups in the order of the hash of their name, until `share` of the images is held out.

    No group straddles, and the answer depends on nothing but the folder. Production compares each hash with the share
    instead, because its images keep arriving; with few groups that may hold out nothing. Raises BadPlan when nothing
    would be left to label.
    """
    held_out: set[str] = set()
    count = 0
    for group in sorted({pair.group for pair in pairs}, key=_hash):
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

    def run(self) -> Iterator[Outcome]:
        """One outcome per round, rounds + 1 in all, as each is done. Raises BadPlan before any training."""
        check(self.plan, len(self.pool))
        labelled = _seed_set(len(self.pool), self.plan.seed_size, self.seed)
        for number in range(self.plan.rounds + 1):
            start = time.monotonic()
            model, steps = self.learner.train([self.pool[i] for i in labelled], self.seed)
            quality = self.learner.evaluate(model, self.held_out)
            n_labels = len(labelled)
            if number < self.plan.rounds:
                labelled = np.concatenate([labelled, self._query(model, labelled, number)])
            seconds = time.monotonic() - start
            name = self.strategy.name
            yield Outcome(name, self.seed, number, n_labels, quality.dice, quality.nsd, seconds, steps)

    def _query(self, model: M, labelled: np.ndarray, number: int) -> np.ndarray:
        """Positions in the pool that the strategy asks for next; none is labelled yet."""
        unlabelled = np.setdiff1d(np.arange(len(self.pool)), labelled)
        rng = np.random.default_rng([self.seed, 1 + number])
        asked = self.strategy.select(self._arrays(model, unlabelled, labelled), self.plan.query_size, rng)
        return unlabelled[asked]

    def _arrays(self, model: M, unlabelled: np.ndarray, labelled: np.ndarray) -> Pool:
        """Only what the strategy needs is computed; a random arm looks at no image."""
        needs, groups = self.strategy.needs, np.array([self.pool[i].group for i in unlabelled], dtype=str)
        scores: list[float] = []
        embeddings: list[np.ndarray] = []
        if needs & {"scores", "embeddings"}:
            for seen in self._seen(model, unlabelled):
                embeddings.append(seen.embedding)
                if "scores" in needs:
                    scores.append(self.strategy.score(seen.draws))
        known = [seen.embedding for seen in self._seen(model, labelled)] if "labelled_embeddings" in needs else []
        return Pool(
            scores=np.array(scores) if "scores" in needs else None,
            embeddings=np.array(embeddings) if "embeddings" in needs else None,
            labelled_embeddings=np.array(known) if "labelled_embeddings" in needs else None,
            groups=groups,
        )

    def _seen(self, model: M, positions: np.ndarray) -> Iterator[Seen]:
        return self.learner.segment(model, [self.pool[i] for i in positions], self.seed)


def _seed_set(n: int, size: int, seed: int) -> np.ndarray:
    """The first labels, uniform; the same for every strategy of a seed."""
    return np.random.default_rng([seed, 0]).permutation(n)[:size]


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
