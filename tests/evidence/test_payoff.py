"""Both arms compared: intervals that hold a known difference, within rounds and by group, and honest words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence import payoff
from evidence.errors import BadFigures
from evidence.payoff import Answers, Verdict, compare, judge

ROUNDS = 4


def answers(**given: Any) -> Answers:
    n = len(given["random"])
    unknown = np.full(n, np.nan)
    arrays = {"groups": np.arange(n), "rounds": np.zeros(n), "dice": unknown, "seconds": unknown, "accepted": unknown}
    found = {name: np.asarray(values) for name, values in (arrays | given).items()}
    return Answers(**found | {"random": found["random"].astype(bool)})


def project(seed: int, *, harder: float = 0.0, n: int = 160, per_group: int = 4, share: float = 0.2) -> Answers:
    """A project whose model gets better, whose patients differ, and whose random share grows from round to round.

    harder: by how much Dice the strategy's images are worse, on average over all that might have been drawn.
    """
    rng = np.random.default_rng(seed)
    groups, rounds = rng.integers(0, n // per_group, n), rng.integers(0, ROUNDS, n)
    random = rng.random(n) < share * (0.5 + rounds / (ROUNDS - 1))
    patient = rng.normal(0, 0.06, n // per_group)[groups]
    dice = 0.62 + 0.05 * rounds + patient - harder * ~random + rng.normal(0, 0.06, n)
    seconds = np.exp(rng.normal(3.5, 0.5, n)) * (1 + 2 * harder * ~random)
    accepted = (dice > 0.8).astype(float)
    return Answers(random, groups, rounds, np.clip(dice, 0, 1), seconds, accepted)


def reordered(given: Answers, order: np.ndarray) -> Answers:
    return Answers(**{name: values[order] for name, values in vars(given).items()})


# --------------------------------------------------------------------------------- what is promised, on known truths


@pytest.mark.parametrize(("harder", "per_group"), [(0.0, 4), (0.08, 4), (0.08, 16)])
def test_the_interval_holds_the_true_difference(harder: float, per_group: int) -> None:
    hits, widths = [], []
    for seed in range(40):
        difference = compare(project(seed, harder=harder, per_group=per_group), "dice").difference
        assert difference is not None
        assert difference.low <= difference.value <= difference.high
        hits.append(difference.low <= -harder <= difference.high)
        widths.append(difference.high - difference.low)
    assert 0.8 <= np.mean(hits) <= 0.99, "90 % are promised; of 40 tries"
    assert np.median(widths) < 0.09


def test_a_strategy_no_better_than_chance_is_seldom_called_better() -> None:
    found = [payoff.verdict_of(compare(project(seed), "dice")) for seed in range(40)]
    assert found.count(Verdict.harder) <= 4
    assert found.count(Verdict.easier) <= 4


def test_a_strategy_that_finds_hard_images_is_called_so() -> None:
    found = [judge(project(seed, harder=0.08)) for seed in range(6)]
    assert [one.verdict for one in found].count(Verdict.harder) >= 5
    assert any("longer" in sentence for one in found for sentence in one.words)


def test_images_of_one_patient_are_one_opinion() -> None:
    """The same answers, each image a patient of its own, would look more certain than they are."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    random = groups % 2 == 0
    dice = 0.7 + rng.normal(0, 0.08, 20)[groups] + rng.normal(0, 0.01, 200)
    whole, torn = (compare(answers(random=random, dice=dice, groups=each), "dice") for each in (groups, np.arange(200)))
    assert whole.difference is not None and torn.difference is not None
    assert whole.difference.value == pytest.approx(torn.difference.value)
    assert whole.difference.high - whole.difference.low > 2 * (torn.difference.high - torn.difference.low)


def test_a_model_that_gets_better_does_not_count_for_the_arm_that_came_later() -> None:
    """Every image is as hard as any other of its round, but most random answers are of the second, better round."""
    random = np.array([True] * 10 + [False] * 90 + [True] * 60 + [False] * 40)
    rounds = np.array([0] * 100 + [1] * 100)
    dice = np.where(rounds == 0, 0.5, 0.9)
    found = compare(answers(random=random, rounds=rounds, dice=dice), "dice")
    assert found.strategy == pytest.approx(found.random)
    assert found.difference == pytest.approx((0, 0, 0), abs=1e-9)
    assert dice[random].mean() - dice[~random].mean() > 0.1, "all together, chance would look better"


def test_rounds_with_one_arm_alone_say_nothing() -> None:
    random = np.array([True] * 20 + [False] * 20 + [False] * 30)
    rounds = np.array([0] * 40 + [1] * 30)
    dice = np.array([0.8] * 20 + [0.7] * 20 + [0.1] * 30)
    found = compare(answers(random=random, rounds=rounds, dice=dice), "dice")
    assert (found.n_strategy, found.n_random) == (20, 20)
    assert found.difference is not None and found.difference.value == pytest.approx(-0.1)


def test_a_lunch_break_decides_nothing() -> None:
    random = np.arange(40) % 2 == 0
    seconds = np.full(40, 30.0)
    calm = compare(answers(random=random, seconds=seconds), "seconds").difference
    lunch = seconds.copy()
    lunch[1] = 4000.0
    found = compare(answers(random=random, seconds=lunch), "seconds").difference
    assert calm is not None and found is not None
    assert found.value - calm.value <= 6.1, "five medians at most, shared by twenty"


# --------------------------------------------------------------------------------------------------------------- laws


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_names_do_not_matter_and_the_seed_hardly(seed: int) -> None:
    given = project(seed, harder=0.03)
    shuffled = reordered(given, np.random.default_rng(seed).permutation(len(given.random)))
    renamed = Answers(**vars(shuffled) | {"groups": np.array([f"{each:05}" for each in shuffled.groups])})
    one, other, again = (compare(each, "dice") for each in (given, renamed, given))
    assert one == again
    assert one.difference is not None and other.difference is not None
    assert one.difference == pytest.approx(other.difference, abs=1e-9)
    reseeded = compare(given, "dice", seed=seed + 1).difference
    assert reseeded == pytest.approx(one.difference, abs=0.02)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_swapping_the_arms_turns_the_sign(seed: int) -> None:
    given = project(seed, harder=0.03)
    one, other = compare(given, "dice"), compare(Answers(**vars(given) | {"random": ~given.random}), "dice")
    assert one.difference is not None and other.difference is not None
    assert other.difference == pytest.approx([-one.difference.value, -one.difference.high, -one.difference.low])


def test_the_random_arm_alone_says_how_good_pre_annotations_are() -> None:
    """The strategy's answers, however bad, do not move it."""
    given = project(5, harder=0.1)
    worse = Answers(**vars(given) | {"dice": np.where(given.random, given.dice, 0.0)})
    found = payoff.random_dice(given)
    assert found is not None and found == payoff.random_dice(worse)
    assert found.value == pytest.approx(given.dice[given.random].mean())
    assert found.low < found.value < found.high
    assert payoff.random_dice(answers(random=[True] * 9, dice=[0.5] * 9)) is None


# -------------------------------------------------------------------------------------------------------------- words


def even(n: int = 40, *, strategy: float, random: float, spread: float = 0.0, **more: Any) -> Answers:
    """Answers of two arms with two Dices, up and down by the spread in turn."""
    chance = np.arange(n) % 2 == 0
    dice = np.where(chance, random, strategy) + spread * np.where(np.arange(n) % 4 < 2, 1, -1)
    return answers(random=chance, dice=dice, **more)


def test_harder_images_and_their_price_are_said() -> None:
    chance = np.arange(40) % 2 == 0
    found = judge(
        even(strategy=0.72, random=0.8, seconds=np.where(chance, 30.0, 44.0), accepted=np.where(chance, 0.9, 0.7))
    )
    assert found.verdict is Verdict.harder
    assert found.words == (
        "the strategy's images were 0.08 Dice harder than random ones (0.08 to 0.08): it finds what the model does not "
        "know",
        "each took 14 s longer (+14 to +14)",
        "20 fewer of 100 were accepted as they were (-20 to -20)",
        "pre-annotations of random images had a Dice of 0.80 (0.80 to 0.80)",
    )


def test_easier_images_are_said() -> None:
    found = judge(even(strategy=0.9, random=0.8, seconds=np.full(40, 9.0)))
    assert found.verdict is Verdict.easier
    assert found.words[0].startswith("the strategy's images were 0.10 Dice easier than random ones")
    assert found.words[1] == "each took about as long as a random one (+0 s, +0 to +0)"


def test_no_sign_is_not_the_same_as_not_knowing() -> None:
    sure, unsure = (judge(even(strategy=0.8, random=0.8, spread=spread)) for spread in (0.02, 0.15))
    assert sure.verdict is Verdict.no_sign
    assert sure.words[0].startswith("no sign that it finds harder images than chance")
    assert unsure.verdict is Verdict.unclear
    assert unsure.words[0].startswith("cannot tell yet: the strategy's images may be anything between 0.0")


def test_too_little_is_said_with_what_is_missing() -> None:
    def why(given: Answers) -> str:
        found = judge(given)
        assert found.verdict is Verdict.too_few
        assert found.comparisons["dice"].difference is None
        return found.words[0]

    few = answers(random=[True] * 3 + [False] * 30, dice=[0.5] * 33)
    assert why(few) == "cannot tell yet: 3 random answers with a pre-annotation, at least 10 needed"
    one = answers(random=[True] + [False] * 30, dice=[0.5] * 31)
    assert why(one) == "cannot tell yet: 1 random answer with a pre-annotation, at least 10 needed"
    few = answers(random=[True] * 30 + [False] * 4, dice=[0.5] * 34)
    assert why(few) == "cannot tell yet: 4 strategy answers with a pre-annotation, at least 10 needed"
    alike = answers(random=[True] * 12 + [False] * 30, dice=[0.5] * 42, groups=[0] * 6 + [1] * 6 + list(range(2, 32)))
    assert why(alike) == "cannot tell yet: 12 random answers with a pre-annotation of 2 groups, at least 5 needed"
    assert (
        why(answers(random=[], dice=[]))
        == "cannot tell yet: 0 random answers with a pre-annotation, at least 10 needed"
    )


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dice": [0.5, 1.2]}, "dice is out of range at positions 1"),
        ({"seconds": [-1.0, np.inf]}, "seconds is out of range at positions 0, 1"),
        ({"accepted": [2.0, 0.0]}, "accepted is out of range at positions 0"),
        ({"groups": [1]}, "parallel"),
    ],
)
def test_figures_that_are_none_are_refused_by_position(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BadFigures, match=message):
        answers(random=[True, False], **changed)
