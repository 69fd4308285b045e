"""What must hold of every simulated round, seen through a learner that remembers what it was asked."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import strategies
from simulation.dataset import Pair
from simulation.errors import BadPlan
from simulation.loop import Arm, Outcome, Plan, Record, held_out_split
from strategies import Pool, Strategy
from tests.simulation.fakes import FakeLearner, make_pairs

PLAN = Plan(rounds=3, query_size=4, seed_size=5, held_out_share=0.25)


def records(
    name: str, seed: int = 0, plan: Plan = PLAN, earlier: Sequence[Record] = ()
) -> tuple[FakeLearner, list[Record]]:
    learner = FakeLearner()
    pool, held_out = held_out_split(make_pairs(40), plan.held_out_share)
    return learner, list(Arm(strategies.get(name), seed, plan, learner, pool, held_out).run(earlier))


def run(name: str, seed: int = 0, plan: Plan = PLAN) -> tuple[FakeLearner, list[Outcome]]:
    learner, found = records(name, seed, plan)
    return learner, [record.outcome for record in found]


@pytest.mark.parametrize("per_group", [1, 2, 7])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_no_group_straddles_and_the_share_is_kept(share: float, per_group: int) -> None:
    pairs = make_pairs(70, per_group)
    pool, held_out = held_out_split(pairs, share)
    assert not {pair.group for pair in pool} & {pair.group for pair in held_out}
    assert sorted(pool + held_out, key=pairs.index) == pairs
    assert 0 <= len(held_out) - share * 70 < per_group


def test_the_split_depends_on_the_groups_alone() -> None:
    pairs = make_pairs(30)
    _, held_out = held_out_split(pairs, 0.3)
    renamed = [replace(pair, id=f"other {pair.id}") for pair in reversed(pairs)]
    assert {pair.group for pair in held_out_split(renamed, 0.3)[1]} == {pair.group for pair in held_out}
    assert [pair.group for pair in held_out] != [pair.group for pair in pairs[: len(held_out)]], "not by file order"


def test_one_group_alone_cannot_be_split() -> None:
    with pytest.raises(BadPlan, match="more than one group"):
        held_out_split(make_pairs(5, per_group=5), 0.2)


@pytest.mark.parametrize("name", strategies.names())
def test_labels_only_grow_by_the_query_size_without_repeats_and_never_from_the_held_out_set(name: str) -> None:
    learner, outcomes = run(name)
    trained = [ids for _, ids in learner.trained]
    assert [len(ids) for ids in trained] == [outcome.n_labels for outcome in outcomes] == [5, 9, 13, 17]
    assert all(set(before) < set(after) for before, after in pairwise(trained))
    assert all(len(set(ids)) == len(ids) for ids in trained)
    held_out = {pair.id for pair in held_out_split(make_pairs(40), 0.25)[1]}
    assert not held_out & set(trained[-1])
    assert all(set(ids) == held_out for ids in learner.evaluated)


def test_outcomes_carry_what_the_learner_found() -> None:
    _, outcomes = run("entropy", seed=7)
    assert [(o.strategy, o.seed, o.round, o.steps) for o in outcomes] == [("entropy", 7, i, 10) for i in range(4)]
    assert [o.dice for o in outcomes] == pytest.approx([0.05, 0.09, 0.13, 0.17])
    assert [o.nsd for o in outcomes] == pytest.approx([0.025, 0.045, 0.065, 0.085])


@pytest.mark.parametrize("name", ["random", "entropy", "hybrid"])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_an_arm_that_was_broken_off_goes_on_as_if_it_had_not_been(name: str, done: int) -> None:
    whole_learner, whole = records(name, plan=replace(PLAN, random_share=0.25))
    learner, rest = records(name, plan=replace(PLAN, random_share=0.25), earlier=whole[:done])
    assert learner.trained == whole_learner.trained[done:]
    assert [untimed(record) for record in rest] == [untimed(record) for record in whole[done:]]


def untimed(record: Record) -> Record:
    return replace(record, outcome=replace(record.outcome, seconds=0.0))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 1), (0.5, 2)])
def test_every_query_carries_its_share_of_chance_and_the_baselines_none(share: float, expected: int) -> None:
    plan = replace(PLAN, random_share=share)
    for record in records("entropy", plan=plan)[1][:-1]:
        assert len(record.asked) == 4
        assert sum(asked.by_chance for asked in record.asked) == expected
    for name in ("random", "foreground_random"):
        assert not any(asked.by_chance for record in records(name, plan=plan)[1] for asked in record.asked)


def test_what_chance_draws_does_not_depend_on_the_strategy() -> None:
    plan = replace(PLAN, rounds=1, random_share=0.5)
    drawn = {
        name: {asked.id for asked in records(name, seed=2, plan=plan)[1][0].asked if asked.by_chance}
        for name in ("entropy", "core_set")
    }
    assert drawn["entropy"] == drawn["core_set"] != set()


def test_a_record_holds_what_was_asked_and_every_held_out_image() -> None:
    learner, found = records("entropy")
    for record, (_, before), (_, after) in zip(found, learner.trained, learner.trained[1:], strict=False):
        assert [asked.id for asked in record.asked] == after[len(before) :]
    assert found[-1].asked == ()
    held_out = [pair.id for pair in held_out_split(make_pairs(40), 0.25)[1]]
    assert all([image.id for image in record.images] == held_out for record in found)


def test_entropy_asks_for_the_most_uncertain_images_left() -> None:
    learner, _ = run("entropy")
    pool = {int(pair.id) for pair in held_out_split(make_pairs(40), 0.25)[0]}
    for (_, before), (_, after) in pairwise(learner.trained):
        left = pool - set(map(int, before))
        asked = [int(name) for name in after[len(before) :]]
        assert asked == sorted(left, reverse=True)[:4], "the fake's entropy grows with the id"


def test_arms_of_a_seed_start_alike_and_other_seeds_do_not() -> None:
    first = {name: run(name, seed)[0].trained[0] for name in strategies.names() for seed in [3]}
    assert len({(seed, tuple(ids)) for seed, ids in first.values()}) == 1
    assert first["random"] != run("random", seed=4)[0].trained[0]
    assert run("random", seed=3)[0].trained == run("random", seed=3)[0].trained


def test_random_looks_at_no_image_and_the_last_round_asks_for_nothing() -> None:
    assert run("random")[0].segmented == []
    assert len(run("entropy")[0].segmented) == PLAN.rounds


def test_embeddings_come_in_two_index_spaces() -> None:
    seen: list[Pool] = []

    def remember(pool: Pool, size: int, _rng: np.random.Generator, _round: int) -> np.ndarray:
        seen.append(pool)
        return np.arange(size)

    needs = frozenset({"embeddings", "labelled_embeddings"})
    learner = FakeLearner()
    pool, held_out = held_out_split(make_pairs(40), 0.25)
    list(Arm(Strategy("looks", None, None, remember, needs), 0, PLAN, learner, pool, held_out).run())
    for (_, labelled), arrays in zip(learner.trained[:-1], seen, strict=True):
        assert arrays.scores is None
        assert arrays.given("labelled_embeddings")[:, 0].tolist() == [int(name) for name in labelled]
        assert set(arrays.given("embeddings")[:, 0]) == {int(pair.id) for pair in pool} - set(map(int, labelled))
        assert len(arrays.given("groups")) == arrays.n


def test_every_image_of_the_pool_may_be_labelled_but_not_one_more() -> None:
    pairs = make_pairs(20, per_group=1)
    exactly = Plan(rounds=2, query_size=5, seed_size=5, held_out_share=0.25)
    assert run_on(pairs, exactly)[-1].n_labels == 15
    with pytest.raises(BadPlan, match=r"asks for 16 labels \(6 \+ 2 x 5\), but only 15"):
        run_on(pairs, replace(exactly, seed_size=6))


def run_on(pairs: list[Pair], plan: Plan) -> list[Outcome]:
    pool, held_out = held_out_split(pairs, plan.held_out_share)
    return [record.outcome for record in Arm(strategies.get("entropy"), 0, plan, FakeLearner(), pool, held_out).run()]


@pytest.mark.parametrize(
    "changed", [{"rounds": -1}, {"query_size": 0}, {"seed_size": 0}, {"held_out_share": 0.0}, {"held_out_share": 1.0}]
)
def test_a_plan_that_means_nothing_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadPlan):
        replace(PLAN, **changed)
