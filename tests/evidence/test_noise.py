"""The noise of a round's Dice against the others': what its images have in common with theirs does not count."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.noise import noise_of_rounds

BETWEEN, WITHIN = 0.2, 0.03


def measured(rng: np.random.Generator, sizes: list[int], within: float = WITHIN) -> list[dict[str, float]]:
    """Rounds on a growing held-out set: each image is as hard as it is, give or take a little in each round."""
    images = rng.normal(0.7, BETWEEN, max(sizes))
    return [{f"g{i}": float(images[i] + rng.normal(0, within)) for i in range(size)} for size in sizes]


def test_it_is_what_rounds_differ_by() -> None:
    """Against the means of many simulated projects, whose model never gets better."""
    sizes = [8, 20, 60, 60]
    rng = np.random.default_rng(0)
    projects = [measured(rng, sizes) for _ in range(300)]
    means = np.array([[np.mean(list(one.values())) for one in rounds] for rounds in projects])
    against_all = means - np.array([np.mean(list(rounds[-1].values())) for rounds in projects])[:, None]
    claimed = np.sqrt(np.mean([np.square(noise_of_rounds(rounds)) for rounds in projects], axis=0))
    true = np.sqrt((against_all[:, :3] ** 2).mean(axis=0) - WITHIN**2 / 60)  # the last round wavers as well
    np.testing.assert_allclose(claimed[:3], true, rtol=0.15)


def test_the_same_images_each_time_leave_only_the_wavering() -> None:
    (first, second) = noise_of_rounds(measured(np.random.default_rng(1), [50, 50]))
    assert first == pytest.approx(second)
    assert first == pytest.approx(WITHIN / np.sqrt(50), rel=0.3)
    assert noise_of_rounds(measured(np.random.default_rng(1), [50, 50], within=0.0)) == pytest.approx([0, 0])


def test_a_small_held_out_set_is_noisier_than_a_large_one() -> None:
    noise = noise_of_rounds(measured(np.random.default_rng(2), [6, 15, 40]))
    assert noise[0] > noise[1] > noise[2] > 0


def test_rounds_that_share_no_image_are_taken_as_independent() -> None:
    rng = np.random.default_rng(3)
    rounds = [{f"{which}{i}": float(rng.normal(0.7, BETWEEN)) for i in range(30)} for which in "ab"]
    assert noise_of_rounds(rounds) == pytest.approx([BETWEEN / np.sqrt(30)] * 2, rel=0.4)


def test_one_group_or_none_is_no_error() -> None:
    assert noise_of_rounds([]) == []
    assert noise_of_rounds([{"a": 0.5}]) == [0.0]
    assert np.isfinite(noise_of_rounds([{"a": 0.5}, {"a": 0.6, "b": 0.9}])).all()
