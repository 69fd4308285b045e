"""How the packaged weights are measured: no group on both sides, more labels extend fewer, the promise as told."""

from pathlib import Path

import pytest

from benchmarks.tiny_pretraining import Run, promise_kept, split, table
from simulation.dataset import Pair


def pairs(n_groups, per_group):
    return [
        Pair(f"{g}-{i}", Path("image"), Path("mask"), f"g{g}", "a disc")
        for g in range(n_groups)
        for i in range(per_group)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_more_labels_extend_fewer(seed):
    everything = pairs(12, 7)
    few, held_out = split(everything, 10, 20, seed)
    many, same = split(everything, 30, 20, seed)
    assert not {p.group for p in many} & {p.group for p in held_out}
    assert many[:10] == few and same == held_out and len(held_out) == 20
    assert len({p.id for p in many}) == 30
    assert split(everything, 10, 20, seed + 100) != (few, held_out)


def runs(gains):
    """Two seeds a set; the second gains 0.02 more than the first."""
    return [
        Run(name, 60, seed, arm, 0.5 + (gain + 0.02 * seed if arm == "pretrained" else 0), 0.1, 1.0)
        for name, gain in gains.items()
        for seed in (0, 1)
        for arm in ("random", "pretrained")
    ]


def test_the_promise_is_a_mean_gain_of_a_tenth_on_two_sets():
    assert promise_kept(runs({"a": 0.095, "b": 0.2, "c": -0.1}))
    assert not promise_kept(runs({"a": 0.085, "b": 0.2, "c": 0.05}))
    assert not promise_kept([run for run in runs({"a": 0.3, "b": 0.3}) if run.arm == "random"])


def test_the_table_shows_the_gain_of_every_seed():
    _, line = table(runs({"a": 0.1}))
    assert " ".join(line.split()) == "a 60 0.500 ± 0.000 0.610 ± 0.014 0.100 +0.110 +0.100 +0.120"
