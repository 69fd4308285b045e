"""Every way on which a real Label Studio asks our API or tells it something: what it stores of it, and what we do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest

from backend.context import Context
from backend.label_studio import masks, payloads
from backend.rounds import cancel
from backend.store import projects, rounds
from backend.tables import Annotation, Round, Task, Trigger
from backend.wiring import SECRET_HEADER
from backend.wiring.model_server import TITLE, USER
from backend.wiring.webhook import ACTIONS
from demo.processes import LOOPBACK, free_port
from tests.backend.label_studio.live import CONFIG, CONFIG_XML, HEIGHT, RANKING, WIDTH, blob, png, serve_next, submit
from tests.backend.label_studio.product import (
    API_TOKEN,
    WEBHOOK_SECRET,
    context_of,
    know_project,
    remember_round,
    served,
)

Found = TypeVar("Found")
VERSION, OTHER = "wardround-r1-v1", "wardround-r1.2-v1"
# Nothing here is about speed: a machine may be busy with other things.
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Desk:
    """A connected project on our running API, as a person at Label Studio's own API uses it."""

    ctx: Context
    person: httpx.Client
    url: str

    def connect(self, project_id: int) -> int:
        """Our API as the project's model server, with our webhook; returns the server's id there."""
        server = self.ctx.label_studio.create_ml_backend(project_id, self.url, TITLE, USER, API_TOKEN)
        for automatic in self.ctx.label_studio.webhooks(project_id):
            self.ctx.label_studio.delete_webhook(automatic["id"])
        headers = {SECRET_HEADER: WEBHOOK_SECRET}
        self.ctx.label_studio.create_webhook(project_id, f"{self.url}/webhook", headers, ACTIONS)
        return int(server["id"])

    def ask(self, path: str, method: str = "GET", **given: Any) -> Any:
        return self.person.request(method, path, **given).raise_for_status().json()

    def act(self, action: str, project_id: int, *task_ids: int, **fields: Any) -> Any:
        """What the Data Manager does with the tasks that are ticked; all of them when none is named."""
        chosen = {"all": False, "included": list(task_ids)} if task_ids else {"all": True, "excluded": []}
        query = {"id": action, "project": project_id}
        body = {"selectedItems": chosen, "project": project_id} | fields
        return self.ask("/api/dm/actions", "POST", params=query, json=body)

    def predictions(self, task_id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("/api/predictions/", params={"task": task_id})
        return found

    def annotation(self, annotation_id: int) -> Annotation | None:
        with self.ctx.store.read() as s:
            return s.get(Annotation, annotation_id)

    def task(self, task_id: int) -> Task | None:
        with self.ctx.store.read() as s:
            return s.get(Task, task_id)


@pytest.fixture
def desk(client, person, project_id, ranking, tmp_path) -> Iterator[Desk]:
    port = free_port()
    ctx = context_of(client, tmp_path, project_id)
    remember_round(ctx, project_id, ranking, VERSION)
    with served(ctx, port):
        yield Desk(ctx, person, f"http://{LOOPBACK}:{port}")
    ctx.store.close()


def seen(look: Callable[[], Found | None]) -> Found:
    """What `look` finds in the end; an event is told once, inside the request that causes it."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not (found := look()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)
    return found


def require_ours(prediction: dict[str, Any], rank: int, version: str = VERSION) -> None:
    """Label Studio holds our name, our place in the queue, and our mask."""
    assert prediction["model_version"] == version
    assert prediction["score"] == pytest.approx(payloads.ls_score(rank, len(RANKING)))
    painted = masks.masks_of(prediction["result"], CONFIG, (HEIGHT, WIDTH))
    assert np.array_equal(painted["Lesion"], blob(rank))


def test_on_every_way_that_asks_for_predictions_label_studio_takes_our_answer(desk: Desk, project_id, ranking) -> None:
    server = desk.connect(project_id)
    assert desk.ask(f"/api/ml/{server}")["state"] == "CO"
    assert [one["state"] for one in desk.ask("/api/ml/", params={"project": project_id})] == ["CO"]
    assert VERSION in str(desk.ask(f"/api/ml/{server}/versions"))

    tried = desk.ask(f"/api/ml/{server}/predict/test", "POST", params={"random": "true"})
    assert VERSION in str(tried)
    assert [desk.predictions(task_id) for task_id in ranking] == [[]] * len(ranking), "a trial stores nothing"

    # Whoever opens a task in the Data Manager.
    desk.ask(f"/api/tasks/{ranking[3]}", params={"project": project_id})
    require_ours(desk.predictions(ranking[3])[0], 3)

    # The label stream, as long as the project has the model server's title for its version.
    assert desk.ask(f"/api/projects/{project_id}/")["model_version"] == TITLE
    streamed = serve_next(desk.person, project_id)["id"]
    require_ours(desk.predictions(streamed)[0], ranking.index(streamed))

    # A page of the Data Manager, where somebody has switched that on.
    desk.ctx.label_studio.update_project(project_id, evaluate_predictions_automatically=True)
    page = desk.ask("/api/tasks", params={"project": project_id, "page_size": 3, "fields": "all"})["tasks"]
    desk.ctx.label_studio.update_project(project_id, evaluate_predictions_automatically=False)
    assert len(page) == 3
    for task in page:
        require_ours(desk.predictions(task["id"])[0], ranking.index(task["id"]))

    # "Retrieve predictions", for all that have none yet in one request; once more changes nothing.
    for _ in range(2):
        desk.act("retrieve_tasks_predictions", project_id)
        for rank, task_id in enumerate(ranking):
            (prediction,) = desk.predictions(task_id)
            require_ours(prediction, rank)


def test_two_projects_on_one_backend_get_each_its_own(desk: Desk, client, person, project_id, ranking) -> None:
    made = person.post("/api/projects/", json={"title": "next door", "label_config": CONFIG_XML})
    other = int(made.raise_for_status().json()["id"])
    files = [(f"file{n}", (f"image{n}.png", png(n), "image/png")) for n in range(len(RANKING))]
    person.post(f"/api/projects/{other}/import", files=files).raise_for_status()
    know_project(desk.ctx, other)
    backwards = sorted(client.task_ids(other), reverse=True)
    remember_round(desk.ctx, other, backwards, OTHER, row_id=2)
    for each in (project_id, other):
        desk.connect(each)
        desk.act("retrieve_tasks_predictions", each)
    for order, version in ((ranking, VERSION), (backwards, OTHER)):
        for rank, task_id in enumerate(order):
            (prediction,) = desk.predictions(task_id)
            require_ours(prediction, rank, version)


def test_what_people_do_with_annotations_and_tasks_is_heard(desk: Desk, client, project_id, ranking) -> None:
    desk.connect(project_id)
    person, regions = desk.person, payloads.regions(CONFIG, {"Lesion": blob()}, {})
    created = submit(person, ranking[0], regions)
    row = seen(lambda: desk.annotation(created))
    assert (row.task_id, row.skipped, row.lead_time_seconds, row.problem) == (ranking[0], False, 2.5, None)

    changed = {"result": payloads.regions(CONFIG, {"Organ": blob(9)}, {}), "lead_time": 9.0}
    desk.ask(f"/api/annotations/{created}/", "PATCH", json=changed)
    assert seen(lambda: (found := desk.annotation(created)) and found.updated_at != row.updated_at)
    assert desk.annotation(created).lead_time_seconds == 9.0  # type: ignore[union-attr]

    person.delete(f"/api/annotations/{created}/").raise_for_status()
    assert seen(lambda: (found := desk.annotation(created)) and found.deleted_at)

    skipped = submit(person, ranking[1], was_cancelled=True)
    assert seen(lambda: desk.annotation(skipped)).skipped

    # "Create annotations from predictions": one event about several tasks.
    desk.act("retrieve_tasks_predictions", project_id)
    desk.act("predictions_to_annotations", project_id, *ranking[2:4], model_version=VERSION)
    made = [desk.ask(f"/api/tasks/{task_id}/annotations/")[0]["id"] for task_id in ranking[2:4]]
    assert [seen(partial(desk.annotation, one)).task_id for one in made] == ranking[2:4]

    files = [("file", ("late.png", png(99), "image/png"))]
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
    (late,) = client.task_ids(project_id) - set(ranking)
    assert seen(lambda: desk.task(late)).image_url.endswith("late.png")
    desk.act("delete_tasks", project_id, late)
    assert seen(lambda: (found := desk.task(late)) and found.deleted_at)

    wider = CONFIG_XML.replace('<Label value="Organ"/>', '<Label value="Organ"/><Label value="Bone"/>')
    client.update_project(project_id, label_config=wider)
    assert seen(lambda: "Bone" in config_of(desk.ctx, project_id))


def config_of(ctx: Context, project_id: int) -> str:
    with ctx.store.read() as s:
        return projects.get(s, project_id).label_config


def test_a_training_is_started_by_the_button_and_by_a_submission(desk: Desk, client, project_id, ranking) -> None:
    server = desk.connect(project_id)
    first = last_round(desk.ctx, project_id)
    for _ in range(2):  # the second time one runs already, which is no error
        desk.person.post(f"/api/ml/{server}/train", json={}).raise_for_status()
        pressed = last_round(desk.ctx, project_id)
        assert (pressed.number, pressed.trigger) == (first.number + 1, Trigger.request)
    cancel(desk.ctx, pressed.id)

    client.update_project(project_id, min_annotations_to_start_training=1)
    annotation_id = submit(desk.person, ranking[0])
    assert seen(lambda: desk.annotation(annotation_id)).task_id == ranking[0]
    assert last_round(desk.ctx, project_id).number == pressed.number + 1


def last_round(ctx: Context, project_id: int) -> Round:
    with ctx.store.read() as s:
        row = rounds.latest(s, project_id)
    assert row is not None
    return row
