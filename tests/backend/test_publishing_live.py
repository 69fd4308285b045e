"""Publishing to a real Label Studio: killed between any two calls, shuffled and drifted behind our back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from pydantic import SecretStr

from backend import rounds
from backend.annotations import reconcile
from backend.context import Context
from backend.errors import ClaimLost
from backend.files import Files
from backend.label_studio.client import LabelStudioClient
from backend.rounds import forget, push
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store, predictions, projects
from backend.store import rounds as rows
from backend.tables import Project, RoundStatus, Trigger, Verdict
from demo.label_studio import LabelStudioServer
from tests.backend.fakes import LABEL_CONFIG
from tests.backend.publishing import REGION
from tests.backend.test_rounds import Killed

N_TASKS = 24
ROWS = 9


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_FIRST_ROWS", ROWS)
    monkeypatch.setattr(push, "_MOST_ROWS", ROWS)
    monkeypatch.setattr(push, "_SETTLING_SECONDS", 0.2)
    monkeypatch.setattr(push, "_SETTLING_FIRST_SECONDS", 0.2)


@pytest.fixture
def person(label_studio: LabelStudioServer) -> Iterator[httpx.Client]:
    with label_studio.client() as person:
        yield person


class Client(LabelStudioClient):
    """A client that may be killed at a call: its number, and whether before or after Label Studio acted."""

    calls = 0
    dies_at: tuple[int, str] | None = None

    def _dying(self, call: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if self.dies_at == (number, "before"):
            raise Killed
        answer = call(*arguments, **fields)
        if self.dies_at == (number, "after"):
            raise Killed
        return answer

    def import_encoded(self, *arguments: Any) -> int:
        return int(self._dying(super().import_encoded, *arguments))

    def model_versions(self, *arguments: Any) -> dict[str, int]:
        return dict(self._dying(super().model_versions, *arguments))

    def tasks_with(self, *arguments: Any) -> set[int]:
        return set(self._dying(super().tasks_with, *arguments))

    def update_project(self, *arguments: Any, **fields: Any) -> dict[str, Any]:
        return dict(self._dying(super().update_project, *arguments, **fields))

    def served_order(self, *arguments: Any) -> list[int]:
        return list(self._dying(super().served_order, *arguments))


@pytest.fixture
def ctx(label_studio: LabelStudioServer, tmp_path: Path) -> Iterator[Context]:
    settings = Settings(
        data_dir=tmp_path, label_studio_url=label_studio.url, label_studio_token=SecretStr(label_studio.token),
        device="cpu", held_out_share=0.3,
    )  # fmt: skip
    store = Store(settings.database_url)
    store.migrate()
    files = Files(tmp_path / "files", max_image_pixels=settings.max_image_pixels)
    with Client(label_studio.url, label_studio.token) as client:
        yield Context(
            settings=settings, store=store, files=files, label_studio=client,
            serving=Serving(store, files, "cpu"), enqueue=lambda *_, **__: None, now=lambda: datetime.now(UTC),
        )  # fmt: skip
    store.close()


@pytest.fixture
def client(ctx: Context) -> Client:
    assert isinstance(ctx.label_studio, Client)
    return ctx.label_studio


def a_project(ctx: Context, person: httpx.Client) -> int:
    """A connected project of a few dozen tasks with stored predictions; returns its id."""
    answer = person.post("/api/projects/", json={"title": "publishing", "label_config": LABEL_CONFIG})
    project_id = int(answer.raise_for_status().json()["id"])
    tasks = [{"data": {"image": f"/data/{n}.png"}} for n in range(N_TASKS)]
    person.post(f"/api/projects/{project_id}/import", json=tasks).raise_for_status()
    row = Project(
        id=project_id, title="publishing", label_config=LABEL_CONFIG, prompts={"Lesion": "a disc"},
        group_field="group", prompt_field="prompt", connected_at=ctx.now(),
    )  # fmt: skip
    with ctx.store.begin() as s:
        projects.save(s, row)
    reconcile(ctx, row)
    with ctx.store.begin() as s:
        version = predictions.add_version(
            s, project_id, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=ctx.now()
        )
        stored = {
            "model_version_id": version.id,
            "regions_json": orjson.dumps([REGION]).decode(),
            "created_at": ctx.now(),
        }
        tasks_there = projects.all_tasks(s, project_id)
        assert len(tasks_there) == N_TASKS
        predictions.add(s, [stored | measured(task.id) for task in tasks_there])
    return project_id


def measured(task_id: int) -> dict[str, Any]:
    """What ranking looks at: a score and an embedding of length 1 of its own."""
    angle = task_id * 0.7
    embedding = np.array([np.cos(angle), np.sin(angle)], "<f4").tobytes()
    return {"task_id": task_id, "score": float(task_id * 7 % 24), "embedding": embedding}


def ready(ctx: Context, project_id: int) -> int:
    with ctx.store.begin() as s:
        (version,) = predictions.versions(s, project_id)
        last = rows.latest(s, project_id)
        row = rows.open_round(
            s, project_id, trigger=Trigger.request, strategy=ctx.settings.strategy, seed=last.number + 1 if last else 0,
            now=ctx.now(), status=RoundStatus.rescored, verdict=Verdict.promoted, candidate_id=version.id,
        )  # fmt: skip
        return row.id


def publish(ctx: Context, project_id: int, dies_at: tuple[int, str] | None = None) -> bool:
    """Publish, and go on after a death; whether there was one."""
    client, round_id = ctx.label_studio, ready(ctx, project_id)
    assert isinstance(client, Client)
    client.calls, client.dies_at, died = 0, dies_at, False
    try:
        assert rounds.run(ctx, round_id)
    except Killed:
        died, client.dies_at = True, None
        with ctx.store.begin() as s:
            rows.get(s, round_id).lease_until = 0.0
        assert rounds.run(ctx, round_id)
    client.dies_at = None
    return died


def require_published(ctx: Context, project_id: int) -> list[int]:
    """Nothing doubled, nothing missing, and served in the queue's order, which is returned."""
    with ctx.store.read() as s:
        last = rows.latest(s, project_id)
        assert last is not None and last.status is RoundStatus.done
        queue, name = predictions.queued_ids(s, last.id), str(last.published_version)
    client = ctx.label_studio
    assert len(queue) == N_TASKS
    assert client.tasks_with(project_id, name) == set(queue)
    assert client.model_versions(project_id)[name] == N_TASKS
    assert client.project(project_id)["model_version"] == name
    assert client.served_order(project_id) == queue
    return queue


def test_two_projects_are_published_whole_wherever_it_is_killed(ctx: Context, person: httpx.Client) -> None:
    killed, other = a_project(ctx, person), a_project(ctx, person)
    publish(ctx, other)
    queue = require_published(ctx, other)
    for number in range(20):
        moment = ("before", "after")[number % 2]
        died = publish(ctx, killed, (number, moment))
        require_published(ctx, killed)
        if not died:
            break
    assert number > N_TASKS // ROWS + 4, "each call had its turn"
    assert require_published(ctx, other) == queue, "the other one does not notice"


def test_what_is_done_behind_our_back_is_said_by_the_next_look(ctx: Context, person: httpx.Client) -> None:
    project_id = a_project(ctx, person)
    publish(ctx, project_id)
    queue = require_published(ctx, project_id)
    assert rounds.watch_served(ctx, project_id) is None
    (there,) = person.get("/api/predictions/", params={"task": queue[17]}).json()
    assert there["result"] == [REGION]
    person.patch(f"/api/predictions/{there['id']}/", json={"score": 0.001}).raise_for_status()
    assert f"serves task {queue[17]}" in str(rounds.watch_served(ctx, project_id))
    person.patch(f"/api/predictions/{there['id']}/", json={"score": there["score"]}).raise_for_status()
    assert rounds.watch_served(ctx, project_id) is None
    for changed in ({"sampling": "Sequential sampling"}, {"show_collab_predictions": False}, {"model_version": ""}):
        before = ctx.label_studio.project(project_id)
        person.patch(f"/api/projects/{project_id}/", json=changed).raise_for_status()
        assert next(iter(changed)) in str(rounds.watch_served(ctx, project_id))
        # Label Studio forgets the model version of who hides predictions.
        again = {name: before[name] for name in ("sampling", "show_collab_predictions", "model_version")}
        person.patch(f"/api/projects/{project_id}/", json=again).raise_for_status()
    assert rounds.watch_served(ctx, project_id) is None
    person.post(f"/api/tasks/{queue[0]}/annotations/", json={"result": []}).raise_for_status()
    person.post(f"/api/projects/{project_id}/import", json=[{"data": {"image": "/data/new.png"}}]).raise_for_status()
    assert rounds.watch_served(ctx, project_id) is None, "work goes on, and that is no difference"


def test_a_deleted_task_stops_no_publication(ctx: Context, person: httpx.Client) -> None:
    project_id = a_project(ctx, person)
    with ctx.store.read() as s:
        gone = projects.all_tasks(s, project_id)[5].id
    person.delete(f"/api/tasks/{gone}/").raise_for_status()
    publish(ctx, project_id)
    order = ctx.label_studio.served_order(project_id)
    assert len(order) == N_TASKS - 1 and gone not in order


def test_old_publications_go_row_by_row_and_then_whole(
    ctx: Context, person: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "_AT_ONCE", 4)
    monkeypatch.setattr(forget, "_TASKS", 15)
    project_id = a_project(ctx, person)
    for _ in range(3):
        publish(ctx, project_id)
    names = sorted(ctx.label_studio.model_versions(project_id))
    assert len(names) == 3
    while rounds.forget_some(ctx, project_id):
        pass
    assert ctx.label_studio.model_versions(project_id) == dict.fromkeys(names[1:], N_TASKS)
    require_published(ctx, project_id)


def test_a_cancelled_round_is_neither_served_nor_left_behind(ctx: Context, person: httpx.Client) -> None:
    project_id = a_project(ctx, person)
    publish(ctx, project_id)
    queue, round_id = require_published(ctx, project_id), ready(ctx, project_id)
    client = ctx.label_studio
    assert isinstance(client, Client)
    stop = threading.Event()
    client.calls, client.dies_at = 0, None
    send = client.import_encoded

    def cancelling(*arguments: Any) -> int:
        rounds.cancel(ctx, round_id)
        return send(*arguments)

    client.import_encoded = cancelling  # type: ignore[method-assign]
    assert not rounds.run(ctx, round_id, stop)
    assert client.served_order(project_id) == queue
    rounds.forget_some(ctx, project_id)
    assert len(client.model_versions(project_id)) == 1
    with pytest.raises(ClaimLost), ctx.store.begin() as s:
        rows.change(s, round_id, "nobody", error=None)
