"""The gate: a model that got worse does not pass, a better one does, and the verdict comes with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.rounds.evaluate import _numbered
from backend.rounds.promote import Decision, decide
from backend.tables import Verdict

MARGIN = 0.02
TRIALS = 400


def gate(candidate: Any, incumbent: Any, **changed: Any) -> Decision:
    """One image a task and one task a group, all of one label, unless said otherwise."""
    given: dict[str, Any] = {
        "has_candidate": True,
        "has_incumbent": True,
        "items": [[task_id, "Lesion"] for task_id in range(len(candidate))],
        "groups": None,
        "min_held_out": 1,
        "margin": MARGIN,
        "seed": 1,
    }
    return decide(candidate=candidate, incumbent=incumbent, **(given | changed))


@pytest.mark.parametrize(
    ("has_candidate", "has_incumbent", "expected"),
    [(False, False, Verdict.initial), (False, True, Verdict.kept), (True, False, Verdict.promoted)],
)
def test_without_two_versions_there_is_nothing_to_compare(
    has_candidate: bool, has_incumbent: bool, expected: Verdict
) -> None:
    decision = gate([0.9], [], has_candidate=has_candidate, has_incumbent=has_incumbent)
    assert (decision.verdict, decision.interval, decision.per_label) == (expected, None, {})


@pytest.mark.parametrize("has_incumbent", [False, True])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_nothing_is_promoted_before_enough_held_out_images_have_an_annotation(has_incumbent: bool, n: int) -> None:
    """The first version included: nobody would know how good it is."""
    decision = gate([0.9] * n, [0.1] * n, has_incumbent=has_incumbent, min_held_out=8)
    assert decision.verdict is Verdict.kept
    assert decision.reason.startswith(f"{n} held-out image")
    assert "8 are needed (WARDROUND_MIN_HELD_OUT)" in decision.reason
    assert gate([0.9] * 8, [0.1] * 8, has_incumbent=has_incumbent, min_held_out=8).verdict is Verdict.promoted


def test_labels_of_one_image_are_not_images_of_their_own() -> None:
    items = [[task_id, label] for task_id in range(4) for label in ("Lesion", "Vessel")]
    decision = gate([0.9] * 8, [0.1] * 8, items=items, min_held_out=5)
    assert decision.verdict is Verdict.kept
    assert decision.reason.startswith("4 held-out images")


def test_versions_that_were_not_evaluated_on_the_same_images_are_not_compared() -> None:
    assert gate([0.9] * 8, []).verdict is Verdict.kept


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


def test_one_lucky_patient_does_not_promote() -> None:
    """Ten images of one patient say little more than one image does; taken for ten, they would promote."""
    differences = np.array([0.12] * 10 + [-0.05] * 8)
    groups = ["one"] * 10 + [f"patient {number}" for number in range(8)]
    incumbent = np.full(18, 0.7)
    assert gate(incumbent + differences, incumbent).verdict is Verdict.promoted
    by_patient = gate(incumbent + differences, incumbent, groups=groups)
    assert by_patient.verdict is Verdict.kept
    assert by_patient.difference == pytest.approx(differences.mean())


def test_one_group_alone_shows_nothing() -> None:
    decision = gate([0.9] * 9, [0.1] * 9, groups=["the only patient"] * 9)
    assert (decision.verdict, decision.interval) == (Verdict.kept, None)
    assert "one group" in decision.reason


def test_groups_are_the_same_whatever_they_are_called_and_tasks_are_groups_without_them() -> None:
    rng = np.random.default_rng(3)
    incumbent, gain = rng.beta(8, 2, 24), rng.normal(0.02, 0.1, 24)
    items = [[task_id // 2, "Lesion" if task_id % 2 else "Vessel"] for task_id in range(24)]
    names = [f"patient {task_id}" for task_id, _ in items]
    said = [gate(incumbent + gain, incumbent, items=items, groups=groups) for groups in (None, names, _numbered(names))]
    assert said[0] == said[1] == said[2]


def test_the_evaluation_keeps_which_items_share_a_group_and_not_its_name() -> None:
    assert _numbered(["Ms Doe", "Mr Roe", "Ms Doe", "x"]) == [0, 1, 0, 2]


def test_a_label_that_got_worse_is_named_with_its_difference() -> None:
    items = [[task_id, label] for task_id in range(10) for label in ("Lesion", "Vessel")]
    incumbent = np.full(20, 0.6)
    gain = np.tile([0.2, -0.1], 10)
    decision = gate(incumbent + gain, incumbent, items=items)
    assert decision.verdict is Verdict.kept
    assert decision.difference == pytest.approx(0.05)
    assert "Vessel" in decision.reason
    assert "Lesion" not in decision.reason
    assert {label: round(one["difference"], 6) for label, one in decision.per_label.items()} == {
        "Lesion": 0.2,
        "Vessel": -0.1,
    }
    assert decision.per_label["Vessel"]["interval"] == pytest.approx((-0.1, -0.1))


def test_a_label_of_one_patient_alone_is_not_shown_to_be_worse() -> None:
    items = [[task_id, "Lesion"] for task_id in range(9)] + [[9, "Rare"]]
    decision = gate([0.9] * 9 + [0.1], [0.6] * 9 + [0.3], items=items)
    assert decision.verdict is Verdict.promoted
    assert decision.per_label["Rare"]["interval"] is None


# ------------------------------------------------------------------------------------------- how often it is right


def promoted_share(gain: float, n_images: int, *, per_group: int = 1, label_gains: Any = None) -> float:
    """How often the gate promotes a candidate whose true gain in Dice is `gain` (by label: gain + label_gains).

    Differences of single images spread by 0.1; with groups, half of that variance is the group's own.
    """
    rng = np.random.default_rng(7)
    labels = {"Lesion": 0.0} if label_gains is None else label_gains
    names = [name for name in labels for _ in range(n_images)]
    task_ids = np.tile(np.arange(n_images), len(labels))
    groups = (task_ids // per_group).tolist()
    items = [[int(task_id), name] for task_id, name in zip(task_ids, names, strict=True)]
    means = gain + np.repeat(list(labels.values()), n_images)
    own = 0.1 if per_group == 1 else 0.1 / np.sqrt(2)
    verdicts = []
    for seed in range(TRIALS):
        shared = rng.normal(0, np.sqrt(0.1**2 - own**2), n_images)[task_ids // per_group]
        incumbent = rng.beta(8, 2, len(items))
        candidate = incumbent + rng.normal(means, own) + shared
        verdicts.append(gate(candidate, incumbent, items=items, groups=groups, seed=seed, min_held_out=8).verdict)
    return verdicts.count(Verdict.promoted) / TRIALS


@pytest.mark.parametrize("per_group", [1, 3])
def test_a_candidate_five_points_worse_is_refused_99_times_in_100(per_group: int) -> None:
    assert promoted_share(-0.05, 50, per_group=per_group) <= 0.01


@pytest.mark.parametrize("per_group", [1, 3])
def test_a_clearly_better_candidate_is_accepted_4_times_in_5(per_group: int) -> None:
    assert promoted_share(+0.05, 50, per_group=per_group) >= 0.8


@pytest.mark.parametrize("per_group", [1, 3])
def test_better_on_the_whole_and_much_worse_for_one_label_is_refused(per_group: int) -> None:
    """+25 points on one label and -15 on the other are +5 on the whole."""
    gains = {"Lesion": +0.2, "Vessel": -0.2}
    assert promoted_share(+0.05, 50, per_group=per_group, label_gains=gains) <= 0.01
    assert promoted_share(+0.05, 50, per_group=per_group, label_gains={"Lesion": 0.01, "Vessel": -0.01}) >= 0.8
