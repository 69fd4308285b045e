"""Old publications leave Label Studio in pieces, and nothing leaves that anybody may still look at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from backend import rounds
from backend.errors import NotConnected
from backend.rounds import forget
from backend.store import projects, publications
from backend.store import rounds as rows
from backend.tables import RoundStatus
from tests.backend.conftest import World
from tests.backend.publishing import predict, ready
from tests.backend.test_rounds import PROJECT, populate

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
N_TASKS = 9


@pytest.fixture
def names(world: World) -> list[str]:
    """Names of four publications, oldest first, nothing deleted yet."""
    populate(world, N_TASKS)
    version = predict(world, range(1, N_TASKS + 1))
    found = []
    for _ in range(4):
        assert rounds.run(world.ctx, ready(world, version))
        found.append(str(world.project.published_version))
    return found


def there(world: World) -> dict[str, int]:
    return world.label_studio.model_versions(PROJECT)


def test_the_published_and_the_one_before_stay(world: World, names: list[str]) -> None:
    assert world.sent[-1] == ("forget_versions", PROJECT), "a publication calls for it"
    assert set(there(world)) == set(names)
    assert not rounds.forget_some(world.ctx, PROJECT)
    assert there(world) == dict.fromkeys(names[-2:], N_TASKS)
    assert not rounds.forget_some(world.ctx, PROJECT)


@on_sqlite
def test_what_others_put_there_and_what_a_person_chose_stays(world: World, names: list[str]) -> None:
    fake = world.label_studio
    fake.import_predictions(PROJECT, [fake.predictions[0] | {"model_version": "an imported one"}])
    fake.settings["model_version"] = names[0]
    rounds.forget_some(world.ctx, PROJECT)
    assert set(there(world)) == {"an imported one", names[0], *names[-2:]}


@on_sqlite
def test_what_is_being_published_stays_and_goes_when_it_was_called_off(world: World, names: list[str]) -> None:
    fake = world.label_studio
    with world.ctx.store.read() as s:
        version = rows.get(s, 1).candidate_id
    with world.ctx.store.begin() as s:
        last = rows.latest(s, PROJECT)
        assert last is not None
        row = rows.open_round(
            s, PROJECT, trigger=last.trigger, strategy=last.strategy, seed=9, now=world.ctx.now(),
            status=RoundStatus.rescored,
            verdict=last.verdict, candidate_id=version,
        )  # fmt: skip
        publications.begin(s, row.id, "wardround-r4-v1", 1)
    fake.import_predictions(PROJECT, [fake.predictions[0] | {"model_version": "wardround-r4-v1"}])
    rounds.forget_some(world.ctx, PROJECT)
    assert set(there(world)) == {"wardround-r4-v1", *names[-2:]}
    rounds.cancel(world.ctx, row.id)
    rounds.forget_some(world.ctx, PROJECT)
    assert set(there(world)) == set(names[-2:])


@on_sqlite
def test_no_request_deletes_much_at_once(world: World, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever submits an annotation waits for as long as a whole version takes."""
    monkeypatch.setattr(forget, "_AT_ONCE", 3)
    monkeypatch.setattr(forget, "_TASKS", 2)
    at_once: list[int] = []
    delete = world.label_studio.delete_model_version

    def counted(project_id: int, version: str) -> None:
        at_once.append(there(world)[version])
        delete(project_id, version)

    world.label_studio.delete_model_version = counted  # type: ignore[method-assign]
    assert not rounds.forget_some(world.ctx, PROJECT)
    assert at_once == [3, 3]
    assert there(world) == dict.fromkeys(names[-2:], N_TASKS)


@on_sqlite
def test_pieces_end_and_the_next_goes_on(world: World, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "_AT_ONCE", 0)
    monkeypatch.setattr(forget, "_TASKS", 2)
    clock = iter(range(1000))
    monkeypatch.setattr(forget, "time", SimpleNamespace(monotonic=lambda: 9.0 * next(clock)))
    pieces = 1
    while rounds.forget_some(world.ctx, PROJECT):
        pieces += 1
    assert pieces > 4
    assert set(there(world)) == set(names[-2:])


@on_sqlite
def test_rows_that_no_round_knows_of_and_tasks_that_are_gone_are_no_trouble(
    world: World, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a name that was given up still holds, and a queue of which Label Studio lost the first tasks."""
    monkeypatch.setattr(forget, "_AT_ONCE", 1)
    monkeypatch.setattr(forget, "_TASKS", 3)
    fake = world.label_studio
    fake.import_predictions(PROJECT, [item | {"model_version": "wardround-r0.7-v1"} for item in fake.predictions[:9]])
    with world.ctx.store.read() as s:
        gone = set(publications.queue_of(s, PROJECT, names[0])[:4])
    fake.predictions = [
        item for item in fake.predictions if item["model_version"] != names[0] or item["task"] not in gone
    ]
    whole = fake.delete_model_version
    at_once: list[int] = []

    def counted(project_id: int, version: str) -> None:
        at_once.append(there(world)[version])
        whole(project_id, version)

    fake.delete_model_version = counted  # type: ignore[method-assign]
    assert not rounds.forget_some(world.ctx, PROJECT)
    assert there(world) == dict.fromkeys(names[-2:], N_TASKS)
    assert at_once == [1, 1, 1]


@on_sqlite
def test_a_version_that_somebody_else_deleted_is_no_trouble(
    world: World, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions of a version are counted and read at two moments."""
    monkeypatch.setattr(forget, "_AT_ONCE", 1)
    none: list[Any] = []
    world.label_studio.prediction_ids = lambda *_: none  # type: ignore[method-assign]
    world.label_studio.task_predictions = lambda *_: none  # type: ignore[method-assign]
    assert not rounds.forget_some(world.ctx, PROJECT)
    assert set(there(world)) == set(names[-2:])


@on_sqlite
def test_nothing_is_deleted_in_a_project_that_was_taken_out_of_our_hands(world: World, names: list[str]) -> None:
    with world.ctx.store.begin() as s:
        projects.change(s, PROJECT, disconnected_at=world.ctx.now())
    with pytest.raises(NotConnected):
        rounds.forget_some(world.ctx, PROJECT)
    assert set(there(world)) == set(names)
