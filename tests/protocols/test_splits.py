"""Subsets and grouped splits: laws that hold for any names, groups and seeds."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import splits
from protocols.errors import BadPlan

NAMES = st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=1, max_size=40)
SEEDS = st.integers(0, 5)


def test_a_percentage_is_rounded_down_as_the_published_lists_are():
    published = {
        624: (62, 156, 312),
        2738: (273, 684, 1369),
        5716: (571, 1429, 2858),
        26318: (2631, 6579, 13159),
        78: (7, 19, 39),
        1321: (132, 330, 660),
    }
    for whole, expected in published.items():
        assert tuple(splits.count(percent, whole) for percent in (10, 25, 50)) == expected
        assert splits.count(100, whole) == whole
    assert splits.count(10, 5) == 1
    assert splits.count(10, 0) == 0


@given(NAMES, SEEDS, st.randoms(use_true_random=False))
def test_a_subset_depends_on_names_alone_and_lies_inside_larger_ones(names, seed, random):
    sizes = range(len(names) + 1)
    found = [{names[i] for i in splits.subset(names, size, seed)} for size in sizes]
    assert [len(part) for part in found] == list(sizes)
    assert all(small < large for small, large in pairwise(found))
    mixed = random.sample(names, len(names))
    assert {mixed[i] for i in splits.subset(mixed, len(names) // 2, seed)} == found[len(names) // 2]


def test_another_seed_draws_another_subset_and_too_many_are_refused():
    names = [str(number) for number in range(100)]
    assert splits.subset(names, 10, 0) != splits.subset(names, 10, 1)
    with pytest.raises(BadPlan, match="only 100"):
        splits.subset(names, 101, 0)


@given(st.lists(st.integers(1, 3), min_size=15, max_size=25), SEEDS, st.randoms(use_true_random=False))
def test_no_group_straddles_and_train_has_at_least_its_share(group_sizes, seed, random):
    groups = [f"g{number}" for number, size in enumerate(group_sizes) for _ in range(size)]
    fifth = len(groups) // 5
    sizes = {"train": len(groups) - 2 * fifth, "val": fifth, "test": fifth}
    parts = splits.grouped(groups, sizes, seed)
    home = dict(zip(groups, parts, strict=True))
    assert [home[group] for group in groups] == parts
    counted = Counter(parts)
    assert 0 < counted["test"] <= fifth and 0 < counted["val"] <= fifth
    assert counted["train"] >= sizes["train"]
    order = random.sample(range(len(groups)), len(groups))
    assert splits.grouped([groups[i] for i in order], sizes, seed) == [parts[i] for i in order]


def test_seeds_draw_other_groups_and_every_group_is_tested_under_some_seed():
    groups = [f"g{number % 12}" for number in range(120)]
    sizes = {"train": 80, "val": 20, "test": 20}
    divided = [zip(groups, splits.grouped(groups, sizes, seed), strict=True) for seed in range(40)]
    tested = [{group for group, part in images if part == "test"} for images in divided]
    assert all(len(found) == 2 for found in tested)
    assert set.union(*tested) == set(groups)


def test_groups_too_large_to_divide_are_refused():
    with pytest.raises(BadPlan, match=r"2 groups cannot be divided .*\(val, test would stay empty\)"):
        splits.grouped(["a"] * 50 + ["b"] * 50, {"train": 80, "val": 10, "test": 10}, 0)
