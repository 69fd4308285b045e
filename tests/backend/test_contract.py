"""What Label Studio 1.23.2 really sent, sent again: each request gets the answer Label Studio can use."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.label_studio.masks import decode
from backend.label_studio.payloads import parse_label_config, parse_setup, parse_webhook
from backend.serving import Served
from backend.store import annotations, projects, rounds
from backend.tables import Annotation, Project, Task
from model import ModelConfig, Segmenter
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, START
from tests.backend.web import BASIC, HOOK, add_version, recordings, serve, store_predictions

SIDES = ("width", "height")
ORDINARY = {"/health": 200, "/setup": 200, "/versions": 200, "/predict": 200, "/webhook": 201}
# One database is enough: what differs between them is tested below the door.
pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def replay(world: World, request: Any) -> Any:
    """Send a recorded request with the secret that connecting gave to Label Studio for it."""
    secret: dict[str, Any] = {"headers": HOOK} if request["path"] == "/webhook" else {"auth": BASIC}
    return serve(world).request(request["method"], request["path"], json=request["body"], **secret)


def project_of(request: Any) -> tuple[int, str]:
    """Id and label config of the project a request speaks of."""
    body = request["body"] or {"project": "1.0", "label_config": LABEL_CONFIG}
    if request["path"] == "/webhook":
        event = parse_webhook(body)
        return event.project_id, event.label_config
    return parse_setup(body), body.get("label_config") or body["schema"]


@pytest.fixture
def elsewhere(world: World) -> World:
    """A world where none of the recorded projects is connected: the one of the world is another."""
    with world.ctx.store.begin() as s:
        s.delete(s.get(Project, world.label_studio.project_id))
    return world


def connect(world: World, request: Any) -> Project:
    project_id, label_config = project_of(request)
    world.label_studio.project_id = project_id
    project = Project(
        id=project_id, title="recorded", label_config=label_config, prompts={}, group_field="group",
        prompt_field="prompt", published_version="wardround-r1-v1", connected_at=START,
    )  # fmt: skip
    with world.ctx.store.begin() as s:
        projects.save(s, project)
    return project


@pytest.mark.parametrize("request_", recordings())
def test_a_connected_project_gets_an_ordinary_answer(elsewhere: World, request_: Any) -> None:
    connect(elsewhere, request_)
    answer = replay(elsewhere, request_)
    assert answer.status_code == ORDINARY[request_["path"]], answer.text
    if request_["status"] < 400 and request_["path"] not in ("/predict", "/webhook"):
        # What the recorder answered here, Label Studio took.
        assert set(answer.json()) <= set(request_["response"])


def predictions_or_suggestions(smart: bool) -> list[Any]:
    """The recorded requests for predictions, or those of smart tools."""
    found = recordings("/predict")
    asked = [one for one in found if not one.values[0] or bool(one.values[0]["body"]["params"]["context"]) == smart]
    assert asked, "nothing of this kind was recorded"
    return asked


@pytest.mark.parametrize("request_", predictions_or_suggestions(smart=True))
def test_suggestions_have_the_shape_that_label_studio_took(elsewhere: World, request_: Any) -> None:
    """A point and a box, on an image where `tiny` sees something."""
    project = connect(elsewhere, request_)
    (task,) = request_["body"]["tasks"]
    with elsewhere.ctx.store.begin() as s:
        projects.add_tasks(s, [_task(project.id, task["id"])])
        projects.change(s, project.id, prompts={"Lesion": "a bright disc"})
    (done,) = request_["body"]["params"]["context"]["result"]
    image, disc = spot(done["value"])
    elsewhere.label_studio.images["/data/1.png"] = image
    version = add_version(elsewhere)
    served = Served(version, Segmenter.create(ModelConfig(), seed=0))
    elsewhere.ctx.serving.load = lambda version: served  # type: ignore[method-assign]
    (result,) = replay(elsewhere, request_).json()["results"]
    assert set(result) == {"result", "score", "model_version"}
    (region,) = result["result"]
    found = decode(region["value"]["rle"], *disc.shape)
    assert 2 * (found & disc).sum() / (found.sum() + disc.sum()) > 0.7
    _check_region(region, "Lesion", found, _recorded_regions(request_))


def spot(value: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """An image of 256 x 256 px with a bright disc where a point or a box is: its PNG, and the disc."""
    x, y = (
        value[at] + (0 if "keypointlabels" in value else value[side] / 2) for at, side in zip("xy", SIDES, strict=True)
    )
    rows, columns = np.mgrid[:256, :256]
    disc = np.hypot(rows - 2.56 * y, columns - 2.56 * x) < 12
    buffer = io.BytesIO()
    grey = np.random.default_rng(0).normal(70, 10, disc.shape) + 100 * disc
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue(), disc


@pytest.mark.parametrize("request_", predictions_or_suggestions(smart=False))
def test_predictions_have_the_shape_that_label_studio_took(elsewhere: World, request_: Any) -> None:
    project = connect(elsewhere, request_)
    labels = parse_label_config(project.label_config).labels
    task_ids = [task["id"] for task in request_["body"]["tasks"]]
    with elsewhere.ctx.store.begin() as s:
        projects.add_tasks(s, [_task(project.id, task_id) for task_id in task_ids])
    masks = {label: np.random.default_rng(len(label)).random((31, 17)) > 0.5 for label in labels}
    store_predictions(elsewhere, add_version(elsewhere), task_ids[::2], **masks)
    elsewhere.label_studio.images["/data/1.png"] = b"no picture"  # what is not stored cannot be computed either
    elsewhere.ctx.serving.load = lambda version: None  # type: ignore[assignment,return-value,method-assign]
    results = replay(elsewhere, request_).json()["results"]
    assert len(results) == len(task_ids), "another number is dropped silently"
    for position, result in enumerate(results):
        assert set(result) == {"result", "score", "model_version"}
        assert isinstance(result["model_version"], str) and result["model_version"]
        assert 0 <= result["score"] <= 1
        assert len(result["result"]) == (len(labels) if position % 2 == 0 else 0)
        for region, label in zip(result["result"], labels, strict=False):
            _check_region(region, label, masks[label], _recorded_regions(request_))


def _check_region(region: dict[str, Any], label: str, mask: np.ndarray, recorded: list[dict[str, Any]]) -> None:
    assert region["type"] == "brushlabels"
    assert region["value"]["brushlabels"] == [label]
    assert np.array_equal(decode(region["value"]["rle"], *mask.shape), mask)
    for taken in recorded:
        assert set(taken) - {"score"} <= set(region)  # the score of a region is optional
        assert set(taken["value"]) <= set(region["value"])
        assert (region["from_name"], region["to_name"]) == (taken["from_name"], taken["to_name"])


def _recorded_regions(request: Any) -> list[dict[str, Any]]:
    """Brush regions in the answer that Label Studio took when the request was recorded."""
    results = request["response"]["results"]
    return [region for result in results for region in result["result"] if region["type"] == "brushlabels"]


def _task(project_id: int, task_id: int) -> dict[str, Any]:
    return {
        "id": task_id, "project_id": project_id, "image_url": "/data/1.png", "group_key": "g", "held_out": False,
        "created_at": START,
    }  # fmt: skip


@pytest.mark.parametrize("request_", recordings("/predict"))
def test_a_project_that_is_not_connected_is_told_how_to_connect_it(elsewhere: World, request_: Any) -> None:
    project_id, _ = project_of(request_)
    answer = replay(elsewhere, request_)
    assert answer.status_code == 404
    assert f"wardround connect {project_id}" in answer.json()["detail"]


@pytest.mark.parametrize("request_", recordings("/setup"))
def test_setup_answers_before_the_project_is_connected(elsewhere: World, request_: Any) -> None:
    """Label Studio calls it while it connects."""
    answer = replay(elsewhere, request_)
    assert (answer.status_code, set(answer.json())) == (200, {"model_version"})


@pytest.mark.parametrize("request_", recordings("/webhook"))
def test_events_of_a_project_that_is_not_connected_are_ignored(elsewhere: World, request_: Any) -> None:
    answer = replay(elsewhere, request_)
    if request_["body"]["action"] == "START_TRAINING":
        # Somebody pressed a button and should hear why nothing starts.
        assert answer.status_code == 404
        assert "wardround connect" in answer.json()["detail"]
    else:
        assert answer.status_code == 201
        assert answer.json()["status"].startswith("ignored")
    with elsewhere.ctx.store.read() as s:
        assert not s.query(Task).count()
        assert not s.query(Annotation).count()
    assert elsewhere.sent == []


@pytest.fixture
def told(elsewhere: World) -> World:
    """A connected project that has heard all recorded events in the order they came."""
    requests = [parameter.values[0] for parameter in recordings("/webhook")]
    if not requests[0]:
        pytest.skip("recorded requests: the folder shared/label-studio-requests is not beside the repository")
    connect(elsewhere, requests[0])
    for request in requests:
        assert replay(elsewhere, request).status_code == 201
    return elsewhere


def test_the_recorded_events_together_leave_what_people_did(told: World) -> None:
    bodies: list[Any] = [parameter.values[0]["body"] for parameter in recordings("/webhook")]
    events = [parse_webhook(body) for body in bodies]
    said = {found.id for event in events for found in event.annotations}
    deleted = {one for event in events for one in event.deleted_annotation_ids}
    skipped = {found.id for event in events for found in event.annotations if found.skipped}
    latest = {found.id: found for event in events for found in event.annotations}
    with told.ctx.store.read() as s:
        rows = {row.id: row for row in s.query(Annotation)}
        alive = {annotation.id: masks for annotation, _, masks in annotations.usable(s, 1)}
        (opened,) = rounds.of_project(s, 1)
    assert set(rows) == said | deleted
    assert {row.id for row in rows.values() if row.deleted_at} == deleted
    assert set(alive) <= said - deleted - skipped
    assert alive, "at least one recorded annotation trains"
    for annotation_id, masks in alive.items():
        painted = {
            label
            for region in latest[annotation_id].regions
            if region["type"] in ("brushlabels", "polygonlabels")
            for label in region["value"][region["type"]]
        }
        assert set(masks) == painted
    assert ("run_round", opened.id) in told.sent
    assert not [row.problem for row in rows.values() if row.problem]
