"""Several people's masks become one: laws for any number of masks of any size, and what a round makes of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backend.consensus import How, fuse
from backend.rounds import select_training_set
from backend.rounds.claim import Claim
from backend.rounds.job import Job
from backend.store import rounds
from backend.tables import Round, RoundItem, RoundStatus, Trigger
from tests.backend.conftest import World
from tests.backend.fakes import SIDE

HOWS: list[How] = ["majority", "staple"]


@st.composite
def several(draw: st.DrawFn) -> list[np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    count = draw(st.integers(1, 6))
    # Whole masks of one value are as likely as ragged ones: people find nothing in an image, too.
    one = st.one_of(arrays.arrays(bool, shape), st.booleans().map(lambda value: np.full(shape, value)))
    return [draw(one) for _ in range(count)]


@pytest.mark.parametrize("how", HOWS)
@settings(max_examples=150, deadline=None)
@given(masks=several())
def test_what_all_painted_is_painted_and_what_nobody_painted_is_not(how: How, masks: list[np.ndarray]) -> None:
    before = [mask.copy() for mask in masks]
    found = fuse(masks, how)
    assert found.dtype == bool and found.shape == masks[0].shape
    assert (found >= np.all(masks, axis=0)).all()
    assert (found <= np.any(masks, axis=0)).all()
    assert np.array_equal(fuse(masks[::-1], how), found)
    assert all(np.array_equal(one, two) for one, two in zip(before, masks, strict=True))


@settings(max_examples=100, deadline=None)
@given(masks=several())
def test_the_majority_is_more_than_half(masks: list[np.ndarray]) -> None:
    assert np.array_equal(fuse(masks, "majority"), 2 * np.sum(masks, axis=0) > len(masks))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_people_who_agree_are_taken_at_their_word(how: How, fill: bool, count: int) -> None:
    one = np.full((7, 5), fill)
    assert np.array_equal(fuse([one] * count, how), one)
    one[2:4, 1:3] = not fill
    assert np.array_equal(fuse([one] * count, how), one)


def test_a_tie_is_not_painted() -> None:
    painted, empty = np.ones((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    assert not fuse([painted, empty], "majority").any()
    assert not fuse([painted, empty, painted, empty], "majority").any()


def test_staple_trusts_those_whom_others_bear_out() -> None:
    """Two careful people and three who paint at random: the majority is ragged, STAPLE follows the careful ones."""
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 60), dtype=bool)
    truth[15:45, 20:50] = True
    masks = [truth ^ (rng.random(truth.shape) < 0.02) for _ in range(2)]
    masks += [truth ^ (rng.random(truth.shape) < 0.45) for _ in range(3)]
    wrong = {how: int((fuse(masks, how) != truth).sum()) for how in HOWS}
    assert wrong["staple"] < wrong["majority"] / 2


@pytest.mark.parametrize("how", HOWS)
def test_masks_of_different_sizes_are_refused(how: How) -> None:
    with pytest.raises(ValueError, match="one size"):
        fuse([np.zeros((2, 3), dtype=bool), np.zeros((3, 2), dtype=bool)], how)
    with pytest.raises(ValueError, match="one size"):
        fuse([], how)


def test_nobody_pays_for_the_library_before_it_is_needed() -> None:
    code = "import sys, backend.rounds, backend.app, backend.consensus; sys.exit('SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------ what a round selects


class _Unhindered:
    """A claim that nobody disturbs."""

    def report(self, *_: Any, **__: Any) -> None:
        pass


def select_a_round(world: World, **settings: Any) -> Round:
    """Open a round, let it select, and end it there."""
    ctx = replace(world.ctx, settings=world.ctx.settings.model_copy(update=settings))
    with ctx.store.begin() as s:
        row = rounds.open_round(s, 1, trigger=Trigger.request, strategy="random", seed=0, now=ctx.now())
    write = select_training_set.step(Job(ctx, cast(Claim, _Unhindered()), world.project, row))
    with ctx.store.begin() as s:
        row = rounds.get(s, row.id)
        for name, value in write(s).items():
            setattr(row, name, value)
        row.status, row.finished_at = RoundStatus.failed, ctx.now()
    return row


def item_of(world: World, row: Round) -> RoundItem:
    with world.ctx.store.read() as s:
        (item,) = rounds.items(s, row.id)
    return item


def thirds(*painted: int) -> np.ndarray:
    """A mask with some of its three stripes painted."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for stripe in painted:
        mask[stripe * SIDE // 3 : (stripe + 1) * SIDE // 3] = True
    return mask


@pytest.mark.parametrize(("how", "expected"), [("latest", (2,)), ("majority", (0,)), ("staple", None)])
def test_the_latest_answer_of_each_annotator_counts(world: World, how: str, expected: tuple[int, ...] | None) -> None:
    fake, files = world.label_studio, world.ctx.files
    fake.add_task(1)
    fake.annotate(1, 1, mask=thirds(1), completed_by=7)
    fake.annotate(2, 1, mask=thirds(0, 1), completed_by=8)
    fake.annotate(3, 1, mask=thirds(0), completed_by=7)  # instead of the first
    fake.annotate(4, 1, mask=thirds(2), completed_by=9)
    fake.annotate(5, 1, skipped=True, completed_by=10)
    fake.annotate(6, 1, mask=thirds(1), completed_by=11)
    world.pull()
    world.pass_time(minutes=2)
    fake.delete_annotation(6)
    world.pull()
    item = item_of(world, select_a_round(world, consensus=how))
    assert item.annotation_id == 4
    counted = [thirds(0, 1), thirds(0), thirds(2)]
    if how == "latest":
        assert item.sources is None
    else:
        names = ["2", "3", "4"]
        assert item.sources == {name: files.put_mask(mask) for name, mask in zip(names, counted, strict=True)}
    fused = fuse(counted, "staple") if expected is None else thirds(*expected)
    assert item.mask_sha256 == files.put_mask(fused)


@pytest.mark.parametrize("how", ["latest", "majority", "staple"])
def test_an_answer_alone_is_its_own_mask(world: World, how: str) -> None:
    world.label_studio.add_task(1)
    world.label_studio.annotate(1, 1, mask=thirds(1))
    world.pull()
    item = item_of(world, select_a_round(world, consensus=how))
    assert (item.annotation_id, item.sources) == (1, None)
    assert item.mask_sha256 == world.ctx.files.put_mask(thirds(1))


def test_an_annotation_of_another_size_is_left_out_and_its_task_with_the_last(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    fake = world.label_studio
    fake.add_task(1)
    fake.annotate(1, 1, mask=thirds(0), completed_by=7)
    fake.annotate(2, 1, mask=np.ones((SIDE, 2 * SIDE), dtype=bool), completed_by=8)
    world.pull()
    row = select_a_round(world, consensus="majority")
    item = item_of(world, row)
    assert (item.annotation_id, item.sources, list(row.left_out or {})) == (1, None, ["annotation 2"])
    assert item.mask_sha256 == world.ctx.files.put_mask(thirds(0))
    assert "annotation 2 of task 1 is left out" in caplog.text
    fake.delete_annotation(1)
    world.pass_time(minutes=2)
    world.pull()
    row = select_a_round(world, consensus="majority")
    assert list(row.left_out or {}) == ["1"]
