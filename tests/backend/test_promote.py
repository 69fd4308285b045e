"""The gate: a model that got worse does not pass, a better one does, and the verdict comes with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.rounds.promote import Decision, decide
from backend.tables import Verdict


def gate(candidate: Any, incumbent: Any, **changed: Any) -> Decision:
    given: dict[str, Any] = {"has_candidate": True, "has_incumbent": True, "margin": 0.02, "seed": 1}
    return decide(candidate=candidate, incumbent=incumbent, **(given | changed))


@pytest.mark.parametrize(
    ("has_candidate", "has_incumbent", "expected"),
    [(False, False, Verdict.initial), (False, True, Verdict.kept), (True, False, Verdict.promoted)],
)
def test_without_two_versions_there_is_nothing_to_compare(
    has_candidate: bool, has_incumbent: bool, expected: Verdict
) -> None:
    decision = gate([0.9], [], has_candidate=has_candidate, has_incumbent=has_incumbent)
    assert (decision.verdict, decision.interval) == (expected, None)


def test_without_held_out_annotations_nothing_shows_that_it_is_better() -> None:
    assert gate([], []).verdict is Verdict.kept


def test_the_same_dice_is_not_better() -> None:
    assert gate([0.8] * 20, [0.8] * 20).verdict is Verdict.kept


def test_images_are_compared_in_pairs() -> None:
    """Easy and hard images differ by far more than the two models: only pairing shows the small, steady gain."""
    incumbent = np.linspace(0.1, 0.9, 30)
    decision = gate(incumbent + 0.03, incumbent)
    assert decision.verdict is Verdict.promoted
    assert decision.difference == pytest.approx(0.03)
    assert decision.interval == pytest.approx((0.03, 0.03))


def test_one_lucky_image_does_not_promote() -> None:
    incumbent = [0.8] * 10
    candidate = [0.75] * 9 + [1.0]
    assert gate(candidate, incumbent).verdict is Verdict.kept


def promoted_share(gain: float, n_images: int, spread: float = 0.1) -> float:
    """How often the gate promotes a candidate whose true gain in Dice is `gain`."""
    rng = np.random.default_rng(7)
    verdicts = []
    for seed in range(400):
        incumbent = rng.beta(8, 2, n_images)
        candidate = np.clip(incumbent + rng.normal(gain, spread, n_images), 0, 1)
        verdicts.append(gate(candidate, incumbent, seed=seed).verdict)
    return verdicts.count(Verdict.promoted) / len(verdicts)


def test_a_candidate_five_points_worse_is_refused_99_times_in_100() -> None:
    assert promoted_share(-0.05, 50) <= 0.01


def test_a_clearly_better_candidate_is_accepted_4_times_in_5() -> None:
    assert promoted_share(+0.05, 50) >= 0.8
