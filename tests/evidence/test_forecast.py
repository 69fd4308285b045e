"""The forecast keeps its promises on curves whose truth is known, and says in words what it knows and what not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence import forecast
from evidence.errors import BadFigures, TooFewRounds
from evidence.forecast import Curve, Fit, fit
from tests.evidence.curves import SHAPES, drawn

RISING = Curve([10, 20, 30, 40, 50], [0.50, 0.60, 0.66, 0.70, 0.73])
FLAT = Curve([10, 20, 30, 40, 50, 60], [0.801, 0.799, 0.802, 0.798, 0.800, 0.801])
N_CURVES, POINTS = 8, 7

dice = st.floats(0, 1)
curves = st.builds(
    lambda labels, values: Curve(labels, values[: len(labels)]),
    st.lists(st.integers(1, 500), min_size=3, max_size=6, unique=True),
    st.lists(dice, min_size=6, max_size=6),
)


@pytest.fixture(scope="module")
def rising() -> Fit:
    return fit(RISING)


@pytest.fixture(scope="module")
def flat() -> Fit:
    return fit(FLAT)


# --------------------------------------------------------------------------------- what is promised, on known truths


@pytest.fixture(scope="module")
def backtests() -> dict[str, forecast.Backtest]:
    """One a shape, most of which are not of the family that is fitted."""
    return {
        name: forecast.backtest(curve for curve, _, _ in drawn(shape, N_CURVES, points=POINTS, seed=3))
        for name, shape in SHAPES.items()
    }


def test_the_truth_lies_in_the_80_per_cent_interval(backtests: dict[str, forecast.Backtest]) -> None:
    coverage = {name: found.coverage for name, found in backtests.items()}
    assert 0.75 <= np.mean(list(coverage.values())) <= 0.95
    assert min(coverage.values()) >= 0.7, coverage
    assert max(coverage.values()) <= 0.97, f"an interval that is always right says too little: {coverage}"


def test_intervals_are_narrow_enough_to_act_on(backtests: dict[str, forecast.Backtest]) -> None:
    for found in backtests.values():
        assert found.median_width <= 0.12
        assert found.error <= 0.03
        assert abs(found.bias) <= 0.025
    assert backtests["plateau"].median_width < 0.7 * backtests["logistic"].median_width


def test_the_backtest_asks_about_every_point_after_every_beginning(backtests: dict[str, forecast.Backtest]) -> None:
    for found in backtests.values():
        assert found.n == N_CURVES * sum(range(1, POINTS - 2))
        assert set(found.by_points) == set(range(3, POINTS))


def test_a_wrong_forecast_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backtest itself: intervals that promise too much do not pass it."""
    monkeypatch.setattr(forecast, "predict", lambda *_: forecast.Interval(0.7, 0.70001, 0.70002))
    found = forecast.backtest(curve for curve, _, _ in drawn(SHAPES["power"], 3, points=5, seed=0))
    assert found.coverage < 0.2


def test_it_stops_on_plateaus_and_not_while_there_is_much_to_gain() -> None:
    stopped: dict[bool, list[bool]] = {True: [], False: []}
    for name in ("power", "exponential", "logistic", "plateau"):
        for curve, truth, noise in drawn(SHAPES[name], 14, points=13, seed=5):
            left = truth[-1] - truth[7]
            query = int(curve.labels[1] - curve.labels[0])
            stop = forecast.should_stop(fit(curve.first(8)), query).stop
            if left < noise / 2:
                stopped[True].append(stop)
            elif left > 2 * noise:
                stopped[False].append(stop)
    assert len(stopped[True]) >= 10 and len(stopped[False]) >= 10
    assert np.mean(stopped[True]) >= 0.75
    assert np.mean(stopped[False]) <= 0.05


def test_labels_to_a_target_hold_the_truth() -> None:
    """A target is set where the truth will be three queries on; its number of labels is in the interval."""
    hits = []
    for name in ("power", "exponential"):
        for curve, truth, _ in drawn(SHAPES[name], 15, points=9, seed=11):
            if truth[8] - truth[5] > 0.004 and truth[8] < 1:
                low, _, high = forecast.labels_to(fit(curve.first(6)), float(truth[8]))
                hits.append(low <= curve.labels[8] - curve.labels[5] <= high)
    assert len(hits) >= 20
    assert np.mean(hits) >= 0.75


# --------------------------------------------------------------------------------------------------------------- laws


@settings(max_examples=8, deadline=None)
@given(curves, st.lists(st.integers(1, 20_000), min_size=2, max_size=6))
def test_more_labels_are_never_predicted_worse(curve: Curve, labels: list[int]) -> None:
    fitted = fit(curve)
    found = [forecast.predict(fitted, each) for each in sorted(labels)]
    assert all(0 <= one.low <= one.median <= one.high <= 1 for one in found)
    medians = [one.median for one in found]
    assert medians == sorted(medians)


@settings(max_examples=8, deadline=None)
@given(curves, st.lists(st.floats(0.01, 0.99), min_size=2, max_size=4))
def test_a_higher_target_never_needs_fewer_labels(curve: Curve, targets: list[float]) -> None:
    fitted = fit(curve)
    found = [forecast.labels_to(fitted, target) for target in sorted(targets)]
    for one in found:
        assert 0 <= one.low <= one.median <= one.high
    for end in zip(*found, strict=True):
        assert list(end) == sorted(end)


@settings(max_examples=8, deadline=None)
@given(curves)
def test_the_order_of_the_rounds_does_not_matter_and_chance_plays_no_part(curve: Curve) -> None:
    backwards = Curve(curve.labels[::-1].tolist(), curve.dice[::-1].tolist())
    assert forecast.predict(fit(curve), 1000) == forecast.predict(fit(backwards), 1000)


@settings(max_examples=8, deadline=None)
@given(curves, st.lists(st.integers(0, 5000), min_size=2, max_size=4))
def test_more_labels_are_never_expected_to_gain_less(curve: Curve, more: list[int]) -> None:
    fitted = fit(curve)
    gains = [forecast.expected_gain(fitted, each) for each in sorted(more)]
    assert all(0 <= gain.low <= gain.median <= gain.high for gain in gains)
    assert gains == sorted(gains)
    assert forecast.expected_gain(fitted, 0) == (0, 0, 0)


def test_what_was_reached_needs_no_more_labels(flat: Fit) -> None:
    for target in (0.7, 0.77):
        assert forecast.labels_to(flat, target) == (0, 0, 0), "what has been reached stays so, whatever drifts later"
    assert forecast.chance_of(flat, 0.7, 0) == 1
    assert "no more labels are needed" in forecast.words_for_labels(flat, 0.7)


def test_what_is_above_the_ceiling_is_never_reached(flat: Fit) -> None:
    _, median, high = forecast.labels_to(flat, 0.99)
    assert math.isinf(median) and math.isinf(high)
    assert forecast.chance_of(flat, 0.99, 50) < 0.02
    words = forecast.words_for_labels(flat, 0.99)
    assert "may never be reached" in words
    assert "seems to end at 0.80" in words


def test_noise_widens_the_interval_and_more_points_narrow_it() -> None:
    def width(curve: Curve, labels: float = 120) -> float:
        low, _, high = forecast.predict(fit(curve), labels)
        return high - low

    noisy = Curve(RISING.labels.tolist(), RISING.dice.tolist(), [0.04] * 5)
    assert width(noisy) > 1.3 * width(RISING)
    assert width(RISING.first(3)) > 1.3 * width(RISING)
    assert width(RISING, 400) > width(RISING, 60), "farther ahead is less certain"


def test_a_noisy_round_is_believed_less() -> None:
    labels, values = [10, 20, 30, 40, 50], [0.70, 0.70, 0.40, 0.70, 0.70]
    (said, doubted) = (fit(Curve(labels, values, [0, 0, noise, 0, 0])) for noise in (0.0, 0.3))
    assert forecast.predict(doubted, 50).median == pytest.approx(0.70, abs=0.01)
    assert forecast.predict(doubted, 10).median == pytest.approx(0.70, abs=0.01)
    assert forecast.predict(said, 20).median < 0.67


def test_no_curve_leaves_what_a_dice_can_be() -> None:
    high, low = fit(Curve([10, 20, 40], [0.9, 0.98, 1.0])), fit(Curve([10, 20, 40], [0.0, 0.3, 0.5]))
    assert high.ceiling.max() <= 1
    assert low.at(1).min() == 0, "below the fewest labels as well"


def test_far_ahead_even_a_certain_curve_may_drift(flat: Fit) -> None:
    """0.01 for each doubling: five doublings on it is 0.05, and 80 % of a normal distribution are 2.56 of them."""
    low, _, high = forecast.predict(flat, 32 * 60)
    assert high - low > 2.4 * 0.05


def test_a_measurement_without_noise_gets_the_floor(flat: Fit) -> None:
    """Points on a line by luck are not exact: retraining alone makes them waver."""
    exact = fit(Curve([10, 20, 30, 40], [0.8, 0.8, 0.8, 0.8]))
    low, _, high = forecast.predict(exact, 50)
    assert high - low > 2 * 0.005


def test_a_curve_is_followed_where_it_is_known(rising: Fit) -> None:
    for labels, measured in zip(RISING.labels, RISING.dice, strict=True):
        low, median, high = forecast.predict(rising, labels)
        assert low <= measured <= high
        assert median == pytest.approx(measured, abs=0.01)
    assert 0.73 < forecast.predict(rising, 100).median < 0.9


def test_a_ceiling_is_not_known_from_a_curve_that_still_rises(rising: Fit, flat: Fit) -> None:
    low, _, high = forecast.ceiling(rising)
    assert high - low > 0.1
    low, _, high = forecast.ceiling(flat)
    assert high - low < 0.05


# -------------------------------------------------------------------------------------------------------------- words


def test_a_target_within_reach_is_said_with_its_interval(rising: Fit) -> None:
    low, median, high = forecast.labels_to(rising, 0.76)
    assert 5 <= median <= 40
    words = forecast.words_for_labels(rising, 0.76)
    assert f"needs about {median:.0f} more labels, 80 % interval {low:.0f} to" in words
    assert ("perhaps never" in words) == math.isinf(high)


def test_a_target_that_was_only_just_reached_is_not_sold_as_certain() -> None:
    just = fit(Curve([10, 20, 30, 40], [0.70, 0.76, 0.79, 0.805]))
    low, median, high = forecast.labels_to(just, 0.8)
    assert (low, median) == (0, 0) and high > 0
    assert "probably" in forecast.words_for_labels(just, 0.8)


def test_stopping_is_explained(rising: Fit, flat: Fit) -> None:
    go_on, stop = forecast.should_stop(rising, 20), forecast.should_stop(flat, 10)
    assert (go_on.stop, stop.stop) == (False, True)
    assert go_on.why.startswith("the next 5 queries of 20 should add 0.")
    assert go_on.why.endswith("go on") and stop.why.endswith("stop")
    assert f"{stop.noise:.3f} by which one measurement wavers" in stop.why
    assert forecast.should_stop(rising, 20, queries=1).why.startswith("the next query of 20 ")
    assert forecast.should_stop(rising, 20).gain.median > forecast.should_stop(rising, 20, queries=1).gain.median


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("labels", [[], [10], [10, 20], [10, 10, 20]])
def test_too_few_rounds_are_said_with_what_to_do(labels: list[float]) -> None:
    with pytest.raises(TooFewRounds, match=rf"needs 3 rounds.*there are {len(set(labels))}.*annotate on"):
        Curve(labels, [0.5] * len(labels))


@pytest.mark.parametrize(
    ("labels", "values", "noise", "message"),
    [
        ([10, 0, 30], [0.5, 0.6, 0.7], None, "labels are not above 0 at positions 1"),
        ([10, math.nan, math.inf], [0.5, 0.6, 0.7], None, "labels are not above 0 at positions 1, 2"),
        ([10, 20, 30], [0.5, math.nan, 1.2], None, r"dice is not within \[0, 1\] at positions 1, 2"),
        ([10, 20, 30], [0.5, 0.6, 0.7], [0, -1, math.nan], "noise is not a standard error at positions 1, 2"),
        ([10, 20, 30], [0.5, 0.6], None, "parallel"),
        ([10, 20, 30], [0.5, 0.6, 0.7], [0.1], "parallel"),
    ],
)
def test_figures_that_are_none_are_refused_by_position(
    labels: list[float], values: list[float], noise: list[float] | None, message: str
) -> None:
    with pytest.raises(BadFigures, match=message):
        Curve(labels, values, noise)


@pytest.mark.parametrize("target", [0, 1, -0.5, 90, math.nan])
def test_a_target_that_is_no_dice_is_refused(rising: Fit, target: float) -> None:
    with pytest.raises(BadFigures, match=r"0\.9 would be one"):
        forecast.labels_to(rising, target)


def test_what_cannot_be_asked_is_refused(rising: Fit) -> None:
    with pytest.raises(BadFigures, match="more labels are fewer"):
        forecast.expected_gain(rising, -1)
    with pytest.raises(BadFigures, match="more than 3 points"):
        forecast.backtest([RISING.first(3)])
