"""The tab "Likely errors" on a real Label Studio: it shows these tasks, and leaves queue and tasks as they are."""

import pytest

from backend.disconnect import disconnect
from backend.wiring import errors_tab
from tests.backend.label_studio.live import publish, serve_next, submit
from tests.backend.label_studio.product import context_of


@pytest.fixture
def ctx(client, project_id, tmp_path):
    ctx = context_of(client, tmp_path, project_id)
    yield ctx
    ctx.store.close()


@pytest.fixture
def answered(person, client, project_id, ranking):
    """A published queue whose first three tasks are annotated: task -> annotation."""
    publish(client, project_id, ranking)
    return {task_id: submit(person, task_id) for task_id in ranking[:3]}


def in_tab(person, project_id):
    """The tasks that the Data Manager lists in each of our tabs."""
    tabs = person.get("/api/dm/views/", params={"project": project_id}).raise_for_status().json()
    ours = [tab["id"] for tab in tabs if tab["data"]["title"] == errors_tab.TITLE]
    pages = [
        person.get("/api/tasks", params={"project": project_id, "view": tab, "fields": "all"}).raise_for_status().json()
        for tab in ours
    ]
    return [[task["id"] for task in page["tasks"]] for page in pages]


def state_of(person, client, project_id):
    tasks = person.get("/api/tasks", params={"project": project_id, "fields": "all"}).raise_for_status().json()["tasks"]
    stamps = {task["id"]: (task["updated_at"], task["data"], task["meta"]) for task in tasks}
    return stamps, client.model_versions(project_id), client.project(project_id)["model_version"]


def test_a_reviewer_sees_these_tasks_and_nobody_else_notices(ctx, person, client, project_id, ranking, answered):
    before = state_of(person, client, project_id)
    wanted = sorted(ranking[1:3])
    for _ in range(2):
        errors_tab.show(ctx, project_id, [answered[task_id] for task_id in wanted])
        assert in_tab(person, project_id) == [wanted]
    assert state_of(person, client, project_id) == before
    assert client.served_order(project_id) == list(ranking[3:])
    assert serve_next(person, project_id)["id"] == ranking[3]


def test_the_tab_follows_what_is_suspect_and_what_is_deleted(ctx, person, project_id, ranking, answered):
    errors_tab.show(ctx, project_id, [answered[ranking[0]], answered[ranking[1]]])
    errors_tab.show(ctx, project_id, [answered[ranking[1]], answered[ranking[2]]])
    assert in_tab(person, project_id) == [sorted(ranking[1:3])]
    person.delete(f"/api/annotations/{answered[ranking[1]]}/").raise_for_status()
    assert in_tab(person, project_id) == [[ranking[2]]]
    errors_tab.show(ctx, project_id, [])
    assert in_tab(person, project_id) == []


def test_a_task_with_two_annotations_is_listed_once(ctx, person, project_id, ranking, answered):
    again = submit(person, ranking[0])
    errors_tab.show(ctx, project_id, [answered[ranking[0]], again])
    assert in_tab(person, project_id) == [[ranking[0]]]


def test_disconnecting_takes_it_away(ctx, person, client, project_id, ranking, answered):
    client.create_tab(project_id, {"title": errors_tab.TITLE})
    errors_tab.show(ctx, project_id, list(answered.values()))
    assert len(in_tab(person, project_id)) == 2
    disconnect(ctx, project_id)
    assert in_tab(person, project_id) == [sorted(ranking)], "a tab that somebody made is theirs"
