"""Promises held to rounds: a bound is judged on groups that did not make it, and too few groups say so."""

import numpy as np
import pytest

from simulation import promises
from simulation.loop import ALL, Judged, Outcome, Record


def record(strategy: str, seed: int, number: int, dice: float, images: list[Judged]) -> Record:
    outcome = Outcome(strategy, seed, number, 6 + 6 * number, dice, 0.5, 0.1, 0.1, 1.0, 120)
    return Record(outcome, tuple(images), ())


def held_out(n_groups: int, noise: float, rng: np.random.Generator) -> tuple[list[Judged], dict[str, str]]:
    """Three alike images a group, whose Dice is their confidence but for noise of the group."""
    images, groups = [], {}
    for group in range(n_groups):
        sure, off = rng.uniform(0.5, 0.9), rng.normal(scale=noise)
        for at in range(3):
            images.append(Judged(f"{group}-{at}", float(np.clip(sure + off, 0, 1)), float(sure)))
            groups[f"{group}-{at}"] = f"g{group}"
    return images, groups


def test_bounds_hold_as_often_as_promised_on_groups_left_out() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        images, groups = held_out(30, 0.05, rng)
        kept = promises.bounds([record("entropy", 0, 3, 0.7, images)], groups)
        assert kept is not None
        found.append(kept.coverage)
    assert 0.9 - 0.02 <= np.mean(found) <= 0.99


def test_only_the_last_round_of_every_arm_is_judged_and_not_that_of_all_labels() -> None:
    images, groups = held_out(15, 0.02, np.random.default_rng(1))
    wrong = [Judged(image.id, 0.0, 1.0 - image.confidence) for image in images]
    arms = [record("entropy", 0, 0, 0.1, wrong), record("entropy", 0, 1, 0.7, images)]
    judged = promises.bounds(arms, groups)
    assert judged == promises.bounds([*arms, record(ALL, 0, 0, 0.1, wrong)], groups)
    assert judged is not None
    assert sum(share for share, _ in judged.verdicts.values()) == pytest.approx(1.0)


def test_too_few_groups_are_said_and_not_bounded() -> None:
    levels = []
    for n_groups in (10, 9, 5, 4):
        images, groups = held_out(n_groups, 0.02, np.random.default_rng(2))
        kept = promises.bounds([record("entropy", 0, 1, 0.7, images)], groups)
        levels.append(None if kept is None else kept.level)
    assert levels == [0.9, 0.8, 0.8, None]


def test_every_curve_is_forecast_from_its_beginnings() -> None:
    rounds = [
        record(name, seed, number, 0.8 - 0.3 * 0.6**number + 0.004 * seed, [])
        for name in ("entropy", "random")
        for seed in range(3)
        for number in range(5)
    ]
    found = promises.forecasts(rounds)
    assert found is not None
    assert found.n == 6 * (2 + 1)
    assert found.error < 0.05
    assert promises.forecasts(rounds[:3]) is None
