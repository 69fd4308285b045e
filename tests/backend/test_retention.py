"""Making room: what serves, served or is compared stays; what goes is said first, and can be made or fetched again."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import retention
from backend.context import Context
from backend.errors import StoreUnreachable
from backend.files import Files
from backend.retention import Pruned, kept, prune
from backend.store import Session, projects
from backend.store import retention as rows_to_prune
from backend.tables import FINISHED, ModelVersion, Prediction, Role, Round, RoundItem, RoundStatus, Trigger, Verdict
from tests.backend import rows
from tests.backend.conftest import World

UNFINISHED = [status for status in RoundStatus if status not in FINISHED]
NOTHING = Pruned(0, 0, 0, 0)
HOUR = 60.0  # minutes


class Killed(BaseException):
    """A process that ends without a word."""


# ------------------------------------------------------------------------------------------- which versions stay


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[ModelVersion], list[Round]]:
    """Versions whose parents are older ones, at most one serving, and rounds of any end about them."""
    n_versions = draw(st.integers(0, 12))
    serving = draw(st.integers(0, n_versions))  # 0: none
    versions = [
        rows.version(
            id=100 + number,
            number=number,
            parent_id=draw(st.none() | st.integers(101, 99 + number)) if number > 1 else None,
            serving=number == serving,
        )
        for number in range(1, n_versions + 1)
    ]
    anyone = st.sampled_from([None, *(version.id for version in versions)])
    rounds = [
        rows.a_round(
            number=number,
            status=draw(st.sampled_from(RoundStatus)),
            verdict=draw(st.none() | st.sampled_from(Verdict)),
            candidate_id=draw(anyone),
            incumbent_id=draw(anyone),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    return versions, rounds


@settings(max_examples=300, deadline=None)
@given(histories(), st.integers(1, 5))
def test_each_version_that_stays_has_its_reason_and_no_other_stays(
    history: tuple[list[ModelVersion], list[Round]], keep_versions: int
) -> None:
    versions, rounds = history
    served = [version for version in versions if any(has_served(version, row) for row in rounds)]
    in_service = [version for version in versions if version.serving]
    stay = kept(versions, rounds, keep_versions)
    for version in versions:
        newer = [other for other in served if other.number > version.number]
        reasons = (
            version.serving,
            version in served and len(newer) < keep_versions,
            any(child.parent_id == version.id for child in in_service),
            any(child.parent_id == version.id for child in sorted(served, key=number_of)[-keep_versions:]),
            any(version.id in (row.candidate_id, row.incumbent_id) for row in rounds if row.status not in FINISHED),
        )
        assert (version.id in stay) == any(reasons), (version.number, reasons)


def has_served(version: ModelVersion, row: Round) -> bool:
    chosen = row.status is RoundStatus.done and row.verdict in (Verdict.promoted, Verdict.restored)
    return chosen and row.candidate_id == version.id


def number_of(version: ModelVersion) -> int:
    return version.number


# ---------------------------------------------------------------------------------------------------- checkpoints


class History:
    """A project as rounds would leave it: versions with checkpoint files, predictions and a lineage."""

    def __init__(self, ctx: Context, project_id: int = 1) -> None:
        self.ctx = ctx
        self.project_id = project_id
        self.n_rounds = 0

    def train(self, *, content: bytes | None = None) -> tuple[int, int]:
        """A round that has trained its candidate; ids of both."""
        number = self.n_rounds + 1
        sha256 = self.ctx.files.put("checkpoints", content or f"weights {self.project_id} {number}".encode())
        with self.ctx.store.begin() as s:
            serving = serving_of(s, self.project_id)
            version = add(s, rows.version(
                project_id=self.project_id, number=number, parent_id=serving, checkpoint_sha256=sha256
            ))  # fmt: skip
            opened = self._open(s, candidate_id=version.id, incumbent_id=serving, status=RoundStatus.trained)
            return opened.id, version.id

    def roll_back(self, version_id: int) -> int:
        with self.ctx.store.begin() as s:
            given = {"status": RoundStatus.decided, "verdict": Verdict.restored, "trigger": Trigger.rollback}
            serving = serving_of(s, self.project_id)
            return self._open(s, candidate_id=version_id, incumbent_id=serving, **given).id

    def end(self, round_id: int, verdict: Verdict | None, status: RoundStatus = RoundStatus.done) -> None:
        with self.ctx.store.begin() as s:
            row = s.get_one(Round, round_id)
            while status is RoundStatus.done and row.status is not RoundStatus.rescored:
                row.status = UNFINISHED[UNFINISHED.index(row.status) + 1]
                s.flush()
            row.status, row.verdict = status, verdict
            if status is RoundStatus.done and verdict in (Verdict.promoted, Verdict.restored):
                for version in versions_of(s, self.project_id):
                    version.serving = False
                s.flush()
                s.get_one(ModelVersion, row.candidate_id).serving = True

    def promote(self, *, content: bytes | None = None) -> int:
        round_id, version_id = self.train(content=content)
        self.end(round_id, Verdict.promoted)
        return version_id

    def _open(self, s: Session, **given: Any) -> Round:
        self.n_rounds += 1
        return add(s, rows.a_round(project_id=self.project_id, number=self.n_rounds, **given))


def add(s: Session, row: Any) -> Any:
    s.add(row)
    s.flush()
    return row


def versions_of(s: Session, project_id: int = 1) -> Sequence[ModelVersion]:
    return rows_to_prune.versions_of(s, project_id)


def serving_of(s: Session, project_id: int) -> int | None:
    return next((version.id for version in versions_of(s, project_id) if version.serving), None)


def state(ctx: Context) -> tuple[dict[int, bool], set[int]]:
    """Of each version: whether it is marked; and which versions have a file."""
    with ctx.store.read() as s:
        found = versions_of(s)
    there = ctx.files.checkpoints() | ctx.files.shared_checkpoints()
    marked = {version.id: version.pruned_at is not None for version in found}
    return marked, {version.id for version in found if version.checkpoint_sha256 in there}


def with_settings(world: World, **changed: Any) -> Context:
    world.ctx = replace(world.ctx, settings=world.ctx.settings.model_copy(update=changed))
    return world.ctx


@pytest.mark.parametrize("seed", range(3))
def test_through_any_history_what_serves_its_parent_and_what_is_compared_are_there(world: World, seed: int) -> None:
    ctx = with_settings(world, keep_versions=2)
    history, rng = History(ctx), np.random.default_rng(seed)
    for _ in range(12):
        marked, _there = state(ctx)
        unmarked = [version_id for version_id, gone in marked.items() if not gone]
        rolls_back = bool(unmarked) and rng.random() < 0.3
        if rolls_back:
            round_id = history.roll_back(int(rng.choice(unmarked)))
        else:
            round_id, _ = history.train()
        prune_by_law(ctx)
        verdict = Verdict.restored if rolls_back else Verdict(rng.choice(["promoted", "kept"]))
        ends = [RoundStatus.done, RoundStatus.done, RoundStatus.failed, RoundStatus.cancelled]
        history.end(round_id, verdict, ends[rng.integers(4)])
        prune_by_law(ctx)
    assert prune(ctx) == NOTHING, "making room twice changes nothing"


def prune_by_law(ctx: Context) -> None:
    before, _ = state(ctx)
    with ctx.store.read() as s:
        found, rounds = versions_of(s), rows_to_prune.rounds_of(s, 1)
    serving = [version for version in found if version.serving]
    unfinished = [row for row in rounds if row.status not in FINISHED]
    never = {version.id for version in serving} | {version.parent_id for version in serving}
    never |= {used for row in unfinished for used in (row.candidate_id, row.incumbent_id)}
    prune(ctx)
    after, there = state(ctx)
    assert set(after) == set(before), "no version's row is erased"
    new = {version_id for version_id, marked in after.items() if marked and not before[version_id]}
    assert not new & never
    assert there == {version_id for version_id, marked in after.items() if not marked}


@pytest.mark.parametrize("last_words", ["remove_checkpoint", "remove_shared_checkpoint"])
def test_a_prune_that_was_killed_is_completed_by_the_next(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: str
) -> None:
    ctx = over_a_share(with_settings(world, keep_versions=1), tmp_path)
    history = History(ctx)
    ids = [history.promote() for _ in range(6)]
    real, calls = getattr(Files, last_words), []

    def killed(files: Files, sha256: str) -> None:
        calls.append(sha256)
        if len(calls) == 2:
            raise Killed
        real(files, sha256)

    with monkeypatch.context() as patched:
        patched.setattr(Files, last_words, killed)
        with pytest.raises(Killed):
            prune(ctx)
    marked, there = state(ctx)
    assert there >= {version_id for version_id in ids if not marked[version_id]}, "said first, then removed"
    assert prune(ctx).checkpoints >= 1
    marked, there = state(ctx)
    assert there == {version_id for version_id in ids if not marked[version_id]} == set(ids[-2:])
    assert prune(ctx) == NOTHING


def over_a_share(ctx: Context, tmp_path: Path, machine: str = "files") -> Context:
    (tmp_path / "share").mkdir(exist_ok=True)
    files = Files(tmp_path / machine, max_image_pixels=10**6, url=f"file://{tmp_path / 'share'}")
    return replace(ctx, files=files)


def test_the_store_and_every_machine_let_a_pruned_checkpoint_go(world: World, tmp_path: Path) -> None:
    ctx = over_a_share(with_settings(world, keep_versions=1), tmp_path)
    other = over_a_share(ctx, tmp_path, "other machine")
    history = History(ctx)
    first = history.promote()
    with ctx.store.read() as s:
        sha256 = s.get_one(ModelVersion, first).checkpoint_sha256
    other.files.checkpoint(sha256)
    for _ in range(3):
        history.promote()
    prune(ctx)
    assert sha256 not in ctx.files.shared_checkpoints() | ctx.files.checkpoints()
    assert prune(other).checkpoints == 1
    assert sha256 not in other.files.checkpoints()


def test_with_the_store_away_this_machine_still_gets_its_room(world: World, tmp_path: Path) -> None:
    ctx = over_a_share(with_settings(world, keep_versions=1, image_cache_bytes=1), tmp_path)
    history = History(ctx)
    ids = [history.promote() for _ in range(4)]
    ctx.files.put("images", b"an image")
    world.pass_time(3 * HOUR)
    share = tmp_path / "share"
    share.rename(tmp_path / "away")
    with pytest.raises(StoreUnreachable, match="WARDROUND_FILES_URL"):
        prune(ctx)
    assert len(ctx.files.checkpoints()) == 2
    assert ctx.files.cached_images() == []
    (tmp_path / "away").rename(share)
    assert prune(ctx).checkpoints == 2
    assert state(ctx)[1] == set(ids[-2:])


def test_bytes_that_another_version_still_needs_stay(world: World) -> None:
    ctx = with_settings(world, keep_versions=1)
    with ctx.store.begin() as s:
        projects.save(s, rows.project(id=2))
    first = History(ctx).promote(content=b"the same bytes")
    history = History(ctx, project_id=2)
    history.promote(content=b"the same bytes")
    for _ in range(3):
        history.promote()
    prune(ctx)
    with ctx.store.read() as s:
        assert versions_of(s, 2)[0].pruned_at is not None
        assert ctx.files.checkpoint(s.get_one(ModelVersion, first).checkpoint_sha256).read_bytes() == b"the same bytes"


def test_a_version_that_is_brought_back_this_moment_stays(world: World) -> None:
    """A prune that has chosen a version waits for whoever holds it, and then looks again."""
    ctx = with_settings(world, keep_versions=1)
    history = History(ctx)
    first = history.promote()
    for _ in range(3):
        history.promote()
    with ctx.store.read() as s:
        version = s.get_one(ModelVersion, first)
    pruner = threading.Thread(target=retention._mark, args=(ctx, version))
    with ctx.store.begin() as s:
        rows_to_prune.lock_version(s, first)
        pruner.start()
        pruner.join(0.5)
        assert pruner.is_alive()
        add(s, rows.a_round(number=99, status=RoundStatus.decided, candidate_id=first, verdict=Verdict.restored))
    pruner.join()
    assert state(ctx)[0][first] is False


# ---------------------------------------------------------------------------------------------------- predictions


def test_predictions_of_pruned_versions_go_a_few_at_a_time_and_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = with_settings(world, keep_versions=1)
    history = History(ctx)
    ids = [history.promote() for _ in range(4)]
    with ctx.store.begin() as s:
        for task_id in range(1, 8):
            add(s, rows.task(id=task_id))
            for version_id in ids:
                add(s, rows.prediction(task_id=task_id, model_version_id=version_id))
    monkeypatch.setattr(retention, "_PREDICTIONS_AT_ONCE", 3)
    real, calls = rows_to_prune.delete_pruned_predictions, []

    def delete(s: Session, limit: int) -> int:
        calls.append(limit)
        if len(calls) == 3:
            raise Killed
        return real(s, limit)

    monkeypatch.setattr(rows_to_prune, "delete_pruned_predictions", delete)
    with pytest.raises(Killed):
        prune(ctx)
    assert prune(ctx).predictions == 14 - 6, "what was deleted before the kill stayed deleted"
    with ctx.store.read() as s:
        left = s.query(Prediction.model_version_id).distinct().all()
    assert sorted(version_id for (version_id,) in left) == ids[-2:]
    assert prune(ctx) == NOTHING


# --------------------------------------------------------------------------------------------------------- images


def put_images(world: World, minutes_idle: Sequence[float]) -> list[str]:
    """Images of 10 bytes that were last used so long ago."""
    files, names = world.ctx.files, []
    for number, minutes in enumerate(minutes_idle):
        names.append(files.put("images", f"image {number:04}".encode()))
        used_at = world.ctx.now().timestamp() - 60 * minutes
        os.utime(files.folder / "images" / names[-1][:2] / names[-1], (used_at, used_at))
    return names


def there(ctx: Context) -> set[str]:
    return {image.sha256 for image in ctx.files.cached_images()}


def need(world: World, sha256: str, status: RoundStatus, number: int) -> None:
    with world.ctx.store.begin() as s:
        s.merge(rows.task(id=number))
        s.merge(rows.annotation(id=number, task_id=number))
        opened = add(s, rows.a_round(number=number, status=status))
        add(s, RoundItem(
            round_id=opened.id, annotation_id=number, label="Lesion", task_id=number, role=Role.train,
            image_sha256=sha256, mask_sha256=rows.SHA256, prompt="a lesion",
        ))  # fmt: skip


@pytest.mark.parametrize(("bound", "left"), [(0, 6), (60, 6), (59, 5), (35, 3), (10, 1), (1, 0)])
def test_images_go_the_longest_unused_first_and_no_more_than_must(world: World, bound: int, left: int) -> None:
    names = put_images(world, [9 * HOUR, 4 * HOUR, 8 * HOUR, 5 * HOUR, 7 * HOUR, 6 * HOUR])
    ctx = with_settings(world, image_cache_bytes=bound)
    pruned = prune(ctx)
    by_use = [names[position] for position in (1, 3, 5, 4, 2, 0)]
    assert there(ctx) == set(by_use[:left])
    assert (pruned.images, pruned.image_bytes) == (6 - left, 10 * (6 - left))
    assert prune(ctx) == NOTHING


@pytest.mark.parametrize("status", UNFINISHED)
def test_what_an_unfinished_round_needs_and_what_was_used_just_now_stays(world: World, status: RoundStatus) -> None:
    names = put_images(world, [99 * HOUR, 98 * HOUR, 0.5 * HOUR, 97 * HOUR])
    need(world, names[0], status, 1)
    need(world, names[1], RoundStatus.done, 2)
    ctx = with_settings(world, image_cache_bytes=1)
    assert prune(ctx).images == 2
    assert there(ctx) == {names[0], names[2]}, "only these are over the bound, and both are needed"


def test_an_image_used_within_the_hour_stays_though_an_earlier_use_was_written_down(world: World) -> None:
    (name,) = put_images(world, [0.9 * HOUR])
    ctx = with_settings(world, image_cache_bytes=1)
    ctx.files.path("images", name)  # too soon after the last one to be written down
    world.pass_time(0.9 * HOUR)
    assert prune(ctx).images == 0
    world.pass_time(1 * HOUR)
    assert prune(ctx).images == 1


@pytest.mark.parametrize("seed", range(3))
def test_afterwards_the_images_are_within_the_bound_or_all_in_use(world: World, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = put_images(world, list(rng.uniform(0, 10 * HOUR, 30)))
    needed = set(rng.choice(names, size=rng.integers(0, 20), replace=False).tolist())
    for number, name in enumerate(sorted(needed), start=1):
        need(world, name, RoundStatus.done if number > 1 else RoundStatus.trained, number)
    needed = set(sorted(needed)[:1])
    ctx = with_settings(world, image_cache_bytes=int(rng.integers(1, 300)))
    recent = {i.sha256 for i in ctx.files.cached_images() if i.used_at > ctx.now().timestamp() - 60 * HOUR}
    prune(ctx)
    size = sum(image.size for image in ctx.files.cached_images())
    assert there(ctx) >= needed | recent
    assert size <= ctx.settings.image_cache_bytes or all(
        image.sha256 in needed or image.used_at > ctx.now().timestamp() - 2 * 60 * HOUR
        for image in ctx.files.cached_images()
    )


def test_masks_are_no_cache(world: World) -> None:
    ctx = with_settings(world, image_cache_bytes=1)
    sha256 = ctx.files.put("masks", b"a person's work")
    world.pass_time(1000 * HOUR)
    prune(ctx)
    assert ctx.files.path("masks", sha256).read_bytes() == b"a person's work"
    assert sha256 == hashlib.sha256(b"a person's work").hexdigest()


# ----------------------------------------------------------------------------------------------------------- work


def test_work_of_finished_rounds_goes_and_no_other(world: World) -> None:
    ctx, history = world.ctx, History(world.ctx)
    ended = []
    for status in FINISHED:
        round_id, _ = history.train()
        history.end(round_id, None, status)
        ended.append(round_id)
    running, _ = history.train()
    for round_id in (*ended, running):
        (ctx.files.work(f"round-{round_id}") / "training-state").write_bytes(b"half")
    ctx.files.work("round-12345")
    ctx.files.work("something else")
    prune(ctx)
    assert ctx.files.works() == sorted([f"round-{running}", "round-12345", "something else"])
