"""Journey 2 as a random life: whatever becomes of the webhooks, one pull later our rows say what Label Studio says."""

import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend import annotations
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import Event
from backend.store import projects
from backend.tables import Annotation, Mask, Role, Round, RoundItem, Task
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, SIDE, START
from tests.backend.test_consensus import select_a_round

PROJECT = 1
TWO_LABELS = LABEL_CONFIG.replace("<Label ", '<Label value="Cyst"/><Label ', 1)
KINDS = ("create", "create", "update", "update", "skip", "delete", "task", "delete task", "bulk")
ROUNDS = 11

# What happens, to which one, and how often Label Studio's webhook about it arrives.
LIFE = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 200), st.sampled_from((0, 1, 1, 2))), min_size=40, max_size=60
)


@dataclass
class Life:
    """People at work in the fake Label Studio; each thing they do returns the event that its webhook would carry."""

    world: World
    next_id: int = 1

    def do(self, kind: str, number: int) -> Event | None:
        fake = self.world.label_studio
        task_ids, ids = sorted(fake.task_rows), sorted(fake.annotations)
        if kind == "task" or not task_ids:
            return Event("TASKS_CREATED", PROJECT, tasks=[self._new_task(number)])
        task_id = task_ids[number % len(task_ids)]
        if kind == "delete task":
            return self._delete_task(task_id) if len(task_ids) > 2 else None
        if kind in ("create", "skip"):
            return arrived(self.world, self._answer(self._new_id(), task_id, number, skipped=kind == "skip"))
        if kind == "bulk":
            return arrived(self.world, *(self._answer(self._new_id(), each, number) for each in task_ids[:4]))
        return self._change(kind, ids[number % len(ids)], number) if ids else None

    def _change(self, kind: str, annotation_id: int, number: int) -> Event:
        fake = self.world.label_studio
        if kind == "delete":
            fake.delete_annotation(annotation_id)
            return Event("ANNOTATIONS_DELETED", PROJECT, deleted_annotation_ids=[annotation_id])
        return arrived(self.world, self._answer(annotation_id, fake.annotations[annotation_id].task_id, number))

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def _new_task(self, number: int) -> Any:
        return self.world.label_studio.add_task(self._new_id(), group=f"patient {number % 7}")

    def _answer(self, annotation_id: int, task_id: int, number: int, *, skipped: bool = False) -> Any:
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[number % 9 : number % SIDE, number % 5 :] = True  # sometimes nothing
        fake = self.world.label_studio
        return fake.annotate(annotation_id, task_id, mask=mask, skipped=skipped, completed_by=number % 3)

    def _delete_task(self, task_id: int) -> Event:
        fake = self.world.label_studio
        for annotation_id in [one.id for one in fake.annotations.values() if one.task_id == task_id]:
            del fake.annotations[annotation_id]
        del fake.task_rows[task_id]
        return Event("TASKS_DELETED", PROJECT, deleted_task_ids=[task_id])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=LIFE, order=st.randoms(use_true_random=False), pull_between=st.booleans())
def test_a_pull_makes_good_whatever_became_of_the_webhooks(
    world: World, life: list[tuple[str, int, int]], order: random.Random, pull_between: bool
) -> None:
    _begin_anew(world)
    people, waiting, delivered = Life(world), [], []
    for number, (kind, which, times) in enumerate(life):
        event = people.do(kind, which)
        waiting += [event] * times if event else []
        if pull_between and number == len(life) // 2:
            order.shuffle(waiting)
            delivered += waiting[::2]
            waiting = waiting[1::2]  # these come after the pull, and after what follows it
            _deliver(world, delivered)
            world.pull()
    order.shuffle(waiting)
    _deliver(world, waiting)
    world.pass_time(minutes=2)
    world.pull()
    assert _ours(world) == _theirs(world)
    with world.ctx.store.read() as s:
        kept = {row.id: row for row in s.query(Annotation)}
    for event in delivered + waiting:
        assert {one.id for one in event.annotations} <= set(kept)
        # A task that a webhook brought goes with a mark, never from the table.
        assert all(kept[one.id].task_id in (one.task_id, None) for one in event.annotations)


def _deliver(world: World, events: list[Event]) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda event: annotations.receive(world.ctx, event), events))


def _ours(world: World) -> tuple[set[int], dict[int, Any]]:
    with world.ctx.store.read() as s:
        tasks = {task.id for task in projects.all_tasks(s, PROJECT)}
        rows = [row for row in s.query(Annotation) if row.deleted_at is None and row.task_id in tasks]
        masks: dict[int, dict[str, str]] = {row.id: {} for row in rows}
        for mask in s.query(Mask).filter(Mask.annotation_id.in_(masks)):
            masks[mask.annotation_id][mask.label] = mask.sha256
    return tasks, {
        row.id: (row.task_id, row.skipped, row.completed_by, row.updated_at, row.problem, masks[row.id]) for row in rows
    }


def _theirs(world: World) -> tuple[set[int], dict[int, Any]]:
    fake = world.label_studio
    config = parse_label_config(fake.label_config)
    return set(fake.task_rows), {
        one.id: (
            one.task_id,
            one.skipped,
            one.completed_by,
            one.updated_at,
            None,
            {label: world.ctx.files.put_mask(mask) for label, mask in masks_of(one.regions, config).items()},
        )
        for one in fake.annotations.values()
    }


def _begin_anew(world: World) -> None:
    with world.ctx.store.begin() as s:
        for table in (RoundItem, Round, Mask, Annotation, Task):
            s.query(table).delete()
        projects.change(s, PROJECT, reconciled_until=None, reconciled_at=None, label_config=LABEL_CONFIG)
    fake = world.label_studio
    fake.annotations.clear()
    fake.task_rows.clear()
    fake.label_config, fake.clock = LABEL_CONFIG, START + world.clock[0]


SHORT = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 200)), min_size=1, max_size=4)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    life=st.lists(SHORT, min_size=ROUNDS, max_size=ROUNDS + 2),
    relabelled=st.sets(st.integers(0, ROUNDS)),
    consensus=st.sampled_from(("latest", "majority")),
)
def test_what_is_held_out_never_trains(
    world: World, life: list[list[tuple[str, int]]], relabelled: set[int], consensus: str
) -> None:
    _begin_anew(world)
    people = Life(world)
    for number in range(8):
        people.do("task", number)
    sides: dict[int, tuple[str, bool]] = {}
    for number, happened in enumerate(life):
        if number in relabelled:
            fake = world.label_studio
            fake.label_config = TWO_LABELS if fake.label_config == LABEL_CONFIG else LABEL_CONFIG
        for kind, which in happened:
            people.do(kind, which)
        world.pull()
        select_a_round(world, consensus=consensus)
        with world.ctx.store.read() as s:
            now = {task.id: (task.group_key, task.held_out) for task in s.query(Task)}
        assert sides.items() <= now.items()
        sides = now
    with world.ctx.store.read() as s:
        items = s.query(RoundItem).all()
    roles: dict[str, set[Role]] = {}
    for item in items:
        group, held_out = sides[item.task_id]
        assert (item.role is Role.held_out) == held_out
        roles.setdefault(group, set()).add(item.role)
    assert all(len(found) == 1 for found in roles.values())


# ------------------------------------------------------------------------------------------------------- what it costs


def arrived(world: World, *found: Any) -> Event:
    tasks = [world.label_studio.task_rows[one.task_id] for one in found]
    return Event("ANNOTATIONS_CREATED", PROJECT, list(found), tasks)


@contextmanager
def counted(world: World, monkeypatch: pytest.MonkeyPatch, used: list[str]) -> Iterator[None]:
    """Note every transaction that is made meanwhile: `begin` to write, `read` to read."""
    with monkeypatch.context() as patched:
        for name in ("begin", "read"):
            original = getattr(world.ctx.store, name)
            patched.setattr(world.ctx.store, name, lambda name=name, original=original: used.append(name) or original())  # type: ignore[func-returns-value]
        yield


def test_a_webhook_is_one_read_and_one_write_and_a_repeated_one_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = world.label_studio
    for task_id in (1, 2, 3):
        fake.add_task(task_id)
    sent = arrived(world, *(fake.annotate(task_id, task_id) for task_id in (1, 2, 3)))
    used: list[str] = []
    with counted(world, monkeypatch, used):
        annotations.receive(world.ctx, sent)
        assert used == ["read", "begin"]
        annotations.receive(world.ctx, sent)
        assert used == ["read", "begin", "read"]
    assert set(_ours(world)[1]) == {1, 2, 3}


def test_an_annotation_whose_task_nobody_has_named_comes_with_the_next_pull(world: World) -> None:
    world.label_studio.add_task(1)
    nameless = replace(arrived(world, world.label_studio.annotate(1, 1)), tasks=[])
    assert annotations.receive(world.ctx, nameless)
    world.pull()
    assert set(_ours(world)[1]) == {1}


def test_a_pull_asks_for_all_ids_only_when_the_counts_differ(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = world.label_studio
    asked: list[int] = []
    original = fake.task_ids
    monkeypatch.setattr(fake, "task_ids", lambda project_id: asked.append(1) or original(project_id))  # type: ignore[func-returns-value]
    for task_id in range(1, 5):
        fake.add_task(task_id)
    world.pull()
    assert world.project.reconciled_at is not None
    world.pass_time(minutes=2)
    world.pull()
    assert not asked
    del fake.task_rows[3]
    world.pull()
    assert len(asked) == 1
    world.pull()
    assert len(asked) == 1
    with world.ctx.store.read() as s:
        assert [row.id for row in projects.all_tasks(s, PROJECT)] == [1, 2, 4]


def test_a_failed_pull_leaves_the_time_of_the_last_that_succeeded(world: World) -> None:
    world.pull()
    before = world.project.reconciled_at
    world.label_studio.down = True
    with pytest.raises(Exception, match="nobody answers"):
        world.pull()
    assert world.project.reconciled_at == before


WEBHOOK_ALONE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
import backend.app
from backend import annotations
from backend.files import Files
from backend.label_studio.payloads import Event
from backend.store import Store, projects
from backend.tables import Project
from tests.backend.fakes import LABEL_CONFIG, START, FakeLabelStudio
fake = FakeLabelStudio()
task, found = fake.add_task(1), fake.annotate(1, 1)
folder = Path(sys.argv[1])
store = Store(f"sqlite:///{folder / 'test.db'}")
store.migrate()
with store.begin() as s:
    projects.save(s, Project(id=1, title="", label_config=LABEL_CONFIG, prompts={}, group_field="group",
                             prompt_field="prompt", connected_at=START))
ctx = SimpleNamespace(store=store, files=Files(folder, max_image_pixels=10**6), now=lambda: datetime.now(UTC),
                      settings=SimpleNamespace(held_out_share=0.2))
before = set(sys.modules)
assert annotations.receive(ctx, Event("ANNOTATION_CREATED", 1, [found], [task]))
print(*sorted(set(sys.modules) - before))
"""


def test_the_first_webhook_imports_nothing(tmp_path: Path) -> None:
    """Label Studio's annotator waits one second for it."""
    command = [sys.executable, "-c", WEBHOOK_ALONE, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert answer.stdout.split() == []
