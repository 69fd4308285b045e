"""A publication that is killed anywhere goes on: nothing doubled, nothing missing, nothing half switched to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from backend import rounds
from backend.errors import Interrupted, QueueMismatch
from backend.label_studio.errors import LabelStudioRefused, LabelStudioUnauthorised, LabelStudioUnreachable
from backend.rounds import push
from backend.store import Session, predictions, publications
from backend.store import rounds as rows
from backend.tables import RoundStatus
from tests.backend.conftest import World
from tests.backend.publishing import REGION, end_lease, predict, ready, sent_twice
from tests.backend.test_rounds import PROJECT, Killed, in_full, populate, queue_ids

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

N_TASKS = 23
ROWS = 5


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_FIRST_ROWS", ROWS)
    monkeypatch.setattr(push, "_MOST_ROWS", ROWS)
    monkeypatch.setattr(push, "_READ_ROWS", 2)
    monkeypatch.setattr(push, "_SETTLING_SECONDS", 0.05)
    monkeypatch.setattr(push, "_SETTLING_FIRST_SECONDS", 0.05)


@pytest.fixture
def round_id(world: World) -> int:
    populate(world, N_TASKS)
    return ready(world, predict(world, range(1, N_TASKS + 1)))


class Watched:
    """Calls on Label Studio, counted: `before` and `after` are called with each one's number and name."""

    _NAMES = ("model_versions", "import_encoded", "tasks_with", "task_ids", "update_project", "served_order")

    def __init__(self, world: World, before: Callable[[int, str], None], after: Callable[[int, str], None]) -> None:
        self.calls: list[str] = []
        self._fake = world.label_studio
        for name in self._NAMES:
            setattr(self._fake, name, self._wrapped(name, getattr(self._fake, name), before, after))

    def stop(self) -> None:
        for name in self._NAMES:
            delattr(self._fake, name)

    def _wrapped(self, name: str, call: Callable[..., Any], before: Any, after: Any) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **fields: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            before(number, name)
            answer = call(*arguments, **fields)
            after(number, name)
            return answer

        return wrapped


def nothing(_number: int, _name: str) -> None:
    pass


def run_until_done(world: World, round_id: int) -> int:
    """Run the round, again after each death; returns how often it died."""
    for deaths in range(40):
        try:
            assert rounds.run(world.ctx, round_id)
            return deaths
        except Killed:
            end_lease(world, round_id)
    raise AssertionError("it never ended")


def require_published(world: World, round_id: int) -> None:
    fake, queue = world.label_studio, queue_ids(world)
    assert in_full(world, round_id)["status"] == "done"
    assert sorted(queue) == list(range(1, N_TASKS + 1))
    assert fake.served_order(PROJECT) == queue
    assert fake.settings["model_version"] == world.project.published_version
    served = [item for item in fake.predictions if item["model_version"] == world.project.published_version]
    assert sorted(item["task"] for item in served) == sorted(queue), "one prediction a task"
    assert all(item["result"] == [REGION] for item in served)
    assert not sent_twice(world)


@on_sqlite
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_publication_killed_at_any_call_goes_on(world: World, round_id: int, moment: str) -> None:
    """At the first call of one round, the second of the next, and so on, until a round ends before its turn."""
    fake = world.label_studio
    for number in range(40):
        watched = _kill(world, number, moment)
        died = run_until_done(world, round_id)
        watched.stop()
        require_published(world, round_id)
        if not died:
            break
        if moment == "after" or watched.calls[number] != "import_encoded":
            assert len(fake.imported) == N_TASKS, "what was there already was not sent again"
        fake.imported.clear()
        with world.ctx.store.read() as s:
            version = predictions.serving(s, PROJECT)
        assert version is not None
        round_id = ready(world, version)
    assert number > N_TASKS // ROWS + 4


def _kill(world: World, at: int, moment: str) -> Watched:
    def die(number: int, _name: str) -> None:
        if number == at:
            raise Killed

    return Watched(world, *((die, nothing) if moment == "before" else (nothing, die)))


@on_sqlite
def test_a_publication_killed_twice_goes_on_twice(world: World, round_id: int) -> None:
    def die(_number: int, name: str) -> None:
        if name == "import_encoded" and watched.calls.count(name) < 3:
            raise Killed

    watched = Watched(world, nothing, die)
    assert run_until_done(world, round_id) == 2
    watched.stop()
    require_published(world, round_id)
    assert len(world.label_studio.imported) == N_TASKS


def test_a_batch_whose_answer_was_lost_is_not_doubled(world: World, round_id: int) -> None:
    def lose(number: int, name: str) -> None:
        if name == "import_encoded" and number == 2:
            raise LabelStudioUnreachable("the answer broke off")

    Watched(world, nothing, lose)
    with pytest.raises(LabelStudioUnreachable):
        rounds.run(world.ctx, round_id)
    end_lease(world, round_id)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    assert len(world.label_studio.imported) == N_TASKS


@on_sqlite
def test_a_batch_that_arrives_after_everybody_gave_it_up_is_never_served(world: World, round_id: int) -> None:
    fake = world.label_studio
    late: list[dict[str, Any]] = []

    def keep(_project_id: int, items: Sequence[bytes]) -> int:
        late.extend(orjson.loads(item) for item in items)
        raise LabelStudioUnreachable("no answer")

    send = fake.import_encoded
    fake.import_encoded = keep  # type: ignore[method-assign, assignment]
    with pytest.raises(LabelStudioUnreachable):
        rounds.run(world.ctx, round_id)
    fake.import_encoded = send  # type: ignore[method-assign]
    end_lease(world, round_id)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    fake.import_predictions(PROJECT, late)
    assert fake.settings["model_version"] != late[0]["model_version"]
    require_published(world, round_id)
    assert not rounds.watch_served(world.ctx, PROJECT)
    rounds.forget_some(world.ctx, PROJECT)
    assert set(fake.model_versions(PROJECT)) == {world.project.published_version}


@on_sqlite
def test_a_request_still_at_work_is_waited_for(world: World, round_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy that gives up sooner than Label Studio does."""
    fake = world.label_studio
    monkeypatch.setattr(push, "_SETTLING_SECONDS", 30.0)
    send, counted = fake.import_encoded, fake.model_versions
    waiting: list[Sequence[bytes]] = []

    def slow(project_id: int, items: Sequence[bytes]) -> int:
        if fake.imported and not waiting:
            waiting.append(items)
            raise LabelStudioRefused("gateway timeout", 504)
        return send(project_id, items)

    def count(project_id: int) -> dict[str, int]:
        if waiting and waiting[0]:
            send(project_id, waiting[0])
            waiting[0] = []
        return counted(project_id)

    fake.import_encoded = slow  # type: ignore[method-assign]
    with pytest.raises(LabelStudioRefused):
        rounds.run(world.ctx, round_id)
    fake.model_versions = count  # type: ignore[method-assign]
    end_lease(world, round_id)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    assert len(fake.imported) == N_TASKS


@on_sqlite
def test_rows_turned_away_at_the_door_are_sent_under_the_same_name(world: World, round_id: int) -> None:
    def refuse(number: int, name: str) -> None:
        if name == "import_encoded" and number == 3:
            raise LabelStudioUnauthorised("the token was revoked")

    Watched(world, refuse, nothing)
    with pytest.raises(LabelStudioUnauthorised):
        rounds.run(world.ctx, round_id)
    end_lease(world, round_id)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    assert len(world.label_studio.imported) == N_TASKS


@on_sqlite
def test_the_order_is_the_one_that_was_ranked_first(world: World, round_id: int) -> None:
    """What people answer between two attempts changes no rank: scores are sent already."""
    fake = world.label_studio

    def die(number: int, name: str) -> None:
        if name == "import_encoded" and number == 2:
            raise Killed

    Watched(world, nothing, die)
    with pytest.raises(Killed):
        rounds.run(world.ctx, round_id)
    with world.ctx.store.read() as s:
        frozen = predictions.queued_ids(s, round_id)
    for task_id in frozen[1:7:2]:
        fake.annotate(100 + task_id, task_id)
    world.pull()
    end_lease(world, round_id)
    assert rounds.run(world.ctx, round_id)
    left = [task_id for task_id in frozen if task_id not in frozen[1:7:2]]
    assert fake.served_order(PROJECT) == left == queue_ids(world)
    assert not sent_twice(world)


@on_sqlite
def test_tasks_deleted_while_they_are_sent_stop_nothing(world: World, round_id: int) -> None:
    fake = world.label_studio
    send, gone = fake.import_encoded, 7

    def strict(project_id: int, items: Sequence[bytes]) -> int:
        if fake.imported:
            fake.task_rows.pop(gone, None)
        wanted = {orjson.loads(item)["task"] for item in items}
        if not wanted <= set(fake.task_rows):
            send(project_id, items[:2])  # its faster import stores what comes before the unknown task
            raise LabelStudioRefused('invalid "task" field', 400)
        return send(project_id, items)

    fake.import_encoded = strict  # type: ignore[method-assign]
    assert rounds.run(world.ctx, round_id)
    left = [task_id for task_id in range(1, N_TASKS + 1) if task_id != gone]
    served = [item for item in fake.predictions if item["model_version"] == world.project.published_version]
    assert sorted(item["task"] for item in served if item["task"] != gone) == left
    assert [task_id for task_id in fake.served_order(PROJECT) if task_id != gone] == [
        task_id for task_id in queue_ids(world) if task_id != gone
    ]
    assert not sent_twice(world)


@on_sqlite
@pytest.mark.parametrize("harm", ["lost", "doubled"])
def test_nothing_is_switched_to_that_is_not_complete(world: World, round_id: int, harm: str) -> None:
    """Somebody else deletes a prediction, or adds one: all is sent anew, and after three times the round says so."""
    fake = world.label_studio

    def meddle(_number: int, name: str) -> None:
        if name == "import_encoded" and len(fake.imported) % N_TASKS == 0:
            last = fake.predictions.pop()
            fake.predictions += [] if harm == "lost" else [last, dict(last)]

    Watched(world, nothing, meddle)
    with pytest.raises(QueueMismatch, match="one prediction for each task"):
        rounds.run(world.ctx, round_id)
    assert in_full(world, round_id)["status"] == "failed"
    assert fake.settings["model_version"] == "" and world.project.published_version is None
    assert len(fake.imported) == 3 * N_TASKS and not sent_twice(world)


def test_who_lost_the_round_sends_nothing_more(world: World, round_id: int) -> None:
    def lose(number: int, name: str) -> None:
        if name == "import_encoded" and number == 2:
            rounds.cancel(world.ctx, round_id)

    Watched(world, nothing, lose)
    assert not rounds.run(world.ctx, round_id)
    assert len(world.label_studio.imported) == 2 * ROWS
    assert world.label_studio.settings["model_version"] == ""


@on_sqlite
def test_a_worker_that_stops_hands_the_rest_to_the_next(world: World, round_id: int) -> None:
    stop = threading.Event()

    def ask(number: int, name: str) -> None:
        if name == "import_encoded" and number == 2:
            stop.set()

    Watched(world, nothing, ask)
    with pytest.raises(Interrupted):
        rounds.run(world.ctx, round_id, stop)
    with world.ctx.store.read() as s:
        row = publications.of_round(s, round_id)
        assert row is not None and (row.sent, row.sending) == (ROWS, 2 * ROWS)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    assert len(world.label_studio.imported) == N_TASKS


def test_predictions_are_read_a_few_at_a_time(world: World, round_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read, most = predictions.regions, []

    def counted(s: Session, version_id: int, task_ids: Sequence[int]) -> dict[int, str]:
        most.append(len(task_ids))
        return read(s, version_id, task_ids)

    monkeypatch.setattr(predictions, "regions", counted)
    assert rounds.run(world.ctx, round_id)
    assert (max(most), sum(most)) == (2, N_TASKS)


@on_sqlite
def test_requests_are_bounded_by_weight_too(world: World, round_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, send = [], world.label_studio.import_encoded

    def weighed(project_id: int, items: Sequence[bytes]) -> int:
        sizes.append((len(items), sum(map(len, items))))
        return send(project_id, items)

    world.label_studio.import_encoded = weighed  # type: ignore[method-assign]
    monkeypatch.setattr(push, "_BATCH_BYTES", 800)
    assert rounds.run(world.ctx, round_id)
    require_published(world, round_id)
    assert all(count == 1 or weight <= 800 for count, weight in sizes)
    assert max(count for count, _ in sizes) > 1


@pytest.mark.parametrize(
    ("rows_sent", "seconds", "following"),
    [(1000, 1, 2000), (8000, 5, 10_000), (4000, 30, 4000), (4000, 50, 2000), (1000, 500, 1000)],
)
def test_requests_grow_while_label_studio_is_quick(
    monkeypatch: pytest.MonkeyPatch, rows_sent: int, seconds: float, following: int
) -> None:
    monkeypatch.setattr(push, "_FIRST_ROWS", 1000)
    monkeypatch.setattr(push, "_MOST_ROWS", 10_000)
    assert push.next_rows(rows_sent, seconds) == following


@on_sqlite
def test_regions_without_a_place_in_the_label_config_are_left_out(world: World) -> None:
    """Somebody removed a label: Label Studio would drop the whole prediction, or store what nobody can see."""
    populate(world, 4)
    stale = REGION | {"value": REGION["value"] | {"brushlabels": ["Removed"]}}  # type: ignore[operator]
    round_id = ready(world, predict(world, range(1, 5), [REGION, stale]))
    assert rounds.run(world.ctx, round_id)
    assert [item["result"] for item in world.label_studio.predictions] == [[REGION]] * 4


@on_sqlite
def test_the_round_remembers_its_name_and_that_all_was_sent(world: World, round_id: int) -> None:
    assert rounds.run(world.ctx, round_id)
    with world.ctx.store.read() as s:
        row = publications.of_round(s, round_id)
        assert row is not None
        assert (row.name, row.sent, row.sending) == (world.project.published_version, N_TASKS, N_TASKS)
        assert rows.get(s, round_id).status is RoundStatus.done
