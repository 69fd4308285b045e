"""Disconnecting: out of Label Studio goes what connecting put there, nothing of ours is lost, and nothing runs on."""

from dataclasses import replace
from typing import Any

import pytest

from backend import annotations, predictions, report, rounds
from backend import connect as connecting
from backend.context import Context
from backend.disconnect import disconnect
from backend.errors import NotConnected
from backend.label_studio.errors import LabelStudioUnreachable
from backend.label_studio.payloads import parse_predict, parse_webhook
from backend.store import Store, projects
from backend.store import rounds as rows
from backend.tables import Base, Project, RoundStatus
from tests.backend.conftest import World
from tests.backend.connectable import Connectable, titles
from tests.backend.web import annotation_body, predict_body

PROJECT = 1
# What Label Studio holds does not depend on the database.
pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture
def label_studio() -> Connectable:
    fake = Connectable()
    for task_id in range(1, 7):
        fake.add_task(task_id)
    return fake


@pytest.fixture
def ctx(world: World, label_studio: Connectable) -> Context:
    """Its project is connected, and its first queue published."""
    world.label_studio = label_studio
    ctx = replace(world.ctx, label_studio=label_studio)  # type: ignore[arg-type]
    with ctx.store.begin() as s:
        s.delete(s.get(Project, PROJECT))
    done = connecting.connect(ctx, PROJECT, {"Lesion": "a dark lesion"})
    assert done.round_id is not None and rounds.run(ctx, done.round_id)
    world.ctx = ctx
    return ctx


def count_of(store: Store) -> dict[str, int]:
    with store.read() as s:
        return {table.name: s.query(table).count() for table in Base.metadata.sorted_tables}


def test_what_connecting_put_there_goes_and_what_others_did_stays(ctx: Context, label_studio: Connectable) -> None:
    label_studio.create_ml_backend(PROJECT, "http://other:9090", "Another model", "u", "p")
    label_studio.create_tab(PROJECT, {"title": "Mine"})
    label_studio.create_tab(PROJECT, {"title": "Review", "ordering": ["tasks:id"]})
    assert disconnect(ctx, PROJECT) is None
    assert [backend["title"] for backend in label_studio.backends] == ["Another model"]
    assert [hook["url"] for hook in label_studio.hooks] == ["http://other:9090/webhook"]
    assert titles(label_studio.views) == ["Mine", "Review"], "a tab that somebody arranged is theirs"
    assert (label_studio.settings["sampling"], label_studio.settings["model_version"]) == ("Sequential sampling", "")
    changes = label_studio.changes
    assert disconnect(ctx, PROJECT) is None
    assert label_studio.changes == changes, "once more changes nothing"


def test_settings_that_are_somebody_elses_by_now_stay(ctx: Context, label_studio: Connectable) -> None:
    label_studio.settings |= {"sampling": "Uniform sampling", "model_version": "their-model"}
    disconnect(ctx, PROJECT)
    assert (label_studio.settings["sampling"], label_studio.settings["model_version"]) == (
        "Uniform sampling", "their-model",
    )  # fmt: skip


def test_every_row_stays_and_connecting_again_takes_up_where_it_was(ctx: Context, label_studio: Connectable) -> None:
    before, order = count_of(ctx.store), label_studio.served_order(PROJECT)
    with ctx.store.read() as s:
        known = projects.get(s, PROJECT)
    disconnect(ctx, PROJECT)
    assert count_of(ctx.store) == before
    label_studio.annotate(1, 3)
    done = connecting.connect(ctx, PROJECT, {})
    assert done.round_id is None
    assert done.prompts == {"Lesion": "a dark lesion"}
    assert label_studio.served_order(PROJECT) == [task_id for task_id in order if task_id != 3]
    with ctx.store.read() as s:
        again = projects.get(s, PROJECT)
    kept = ("connected_at", "published_version", "prompts", "group_field", "overlapping")
    assert [getattr(again, name) for name in kept] == [getattr(known, name) for name in kept]
    assert again.disconnected_at is None
    assert count_of(ctx.store)["annotations"] == 1, "what was annotated meanwhile was pulled"


def test_a_round_is_called_off_and_opened_again_on_connecting(ctx: Context, label_studio: Connectable) -> None:
    opened = rounds.open_now(ctx, PROJECT)
    assert disconnect(ctx, PROJECT) == opened
    with ctx.store.read() as s:
        assert rows.get(s, opened).status is RoundStatus.cancelled
    assert rounds.run(ctx, opened) is False
    done = connecting.connect(ctx, PROJECT, {})
    assert done.round_id is not None and done.round_id != opened
    assert connecting.connect(ctx, PROJECT, {}).round_id is None


def test_a_disconnected_project_is_left_alone(ctx: Context, world: World, label_studio: Connectable) -> None:
    event = annotation_body(world, 5, 2)
    disconnect(ctx, PROJECT)
    asked: list[Any] = []
    label_studio.tasks = lambda *_: asked.append("pulled") or iter(())  # type: ignore[func-returns-value, method-assign]
    assert annotations.receive(ctx, parse_webhook(event)) is False
    assert count_of(ctx.store)["annotations"] == 0
    with ctx.store.read() as s:
        assert (projects.every(s), projects.find(s, PROJECT)) == ([], None)
    for call in (
        lambda: rounds.open_if_due(ctx, PROJECT),
        lambda: rounds.open_now(ctx, PROJECT),
        lambda: rounds.roll_back(ctx, PROJECT, 1),
        lambda: report.queue_of(ctx, PROJECT),
        lambda: predictions.answer(ctx, parse_predict(predict_body(world, 1))),
    ):
        with pytest.raises(NotConnected, match="wardround connect 1"):
            call()
    assert asked == []


@pytest.mark.parametrize("after", range(5))
def test_disconnecting_that_was_cut_off_is_finished_by_doing_it_again(
    ctx: Context, label_studio: Connectable, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    change, start = label_studio._change, label_studio.changes

    def give_up() -> None:
        if label_studio.changes >= start + after:
            raise LabelStudioUnreachable("nobody answers")
        change()

    with monkeypatch.context() as patched:
        patched.setattr(label_studio, "_change", give_up)
        with pytest.raises(LabelStudioUnreachable):
            disconnect(ctx, PROJECT)
    with ctx.store.read() as s:
        assert projects.find(s, PROJECT) is None, "our own side comes first"
    disconnect(ctx, PROJECT)
    assert (label_studio.backends, label_studio.hooks, label_studio.views) == ([], [], [])
    assert label_studio.settings["sampling"] == "Sequential sampling"


def test_a_project_that_never_was_connected_cannot_be_disconnected(ctx: Context) -> None:
    with pytest.raises(NotConnected, match="never"):
        disconnect(ctx, 77)
