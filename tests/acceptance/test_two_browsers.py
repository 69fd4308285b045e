"""Two people at two browsers: each has a task of their own, the next of the queue, and is stored as who they are."""

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import parse_label_config
from demo.phantoms import SIZE_PX
from tests.acceptance import editor as editors
from tests.acceptance.editor import Editor
from tests.acceptance.product import LABEL_CONFIG, pre_annotation
from tests.backend.label_studio.live import PASSWORD, sign_up, submit

SHAPE = (SIZE_PX, SIZE_PX)


@pytest.fixture
def colleague(running):
    """A second annotator, signed up by invitation, at the API."""
    with sign_up(running.server.url, running.http) as person:
        yield person


@pytest.fixture
def windows(running, travelled, colleague, chromium_path):
    """A browser window for the first user and one for the colleague; they share nothing."""
    email = colleague.get("/api/current-user/whoami").raise_for_status().json()["email"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=editors.ARGUMENTS)
        yield [
            Editor(browser.new_page(viewport=editors.WINDOW), running.server, running.project.id, user)
            for user in (None, (email, PASSWORD))
        ]
        browser.close()


def test_a_colleague_gets_the_next_task_while_one_is_open(running, windows, colleague, artifacts):
    running.wait_for("rounds to end", lambda: running.last_round().finished)
    mine, theirs = windows
    first = mine.label_all_tasks()
    waiting = [row["task_id"] for row in running.api(f"/api/projects/{running.project.id}/queue")]
    second = theirs.label_all_tasks()
    try:
        assert second["id"] == next(task_id for task_id in waiting if task_id != first["id"])
        for window, task in zip(windows, (first, second), strict=True):
            seen = lambda window=window, task=task: window.shows(running.project.pairs) == task["id"]  # noqa: E731
            running.wait_for("the image", seen, 60)
    finally:
        mine.keep(artifacts / "9-mine.png")
        theirs.keep(artifacts / "10-theirs.png")

    # By API: after a submission in the editor the next task would stay locked to somebody who is gone.
    mask = pre_annotation(second, SHAPE)
    annotation_id = submit(colleague, second["id"], second["predictions"][0]["result"])
    row = running.wait_for("the annotation", lambda: running.annotation(annotation_id))
    assert row.completed_by not in (None, running.user_id())
    stored = running.label_studio(f"/api/annotations/{annotation_id}/")["result"]
    found = masks_of(stored, parse_label_config(LABEL_CONFIG), SHAPE)
    assert np.array_equal(next(iter(found.values()), np.zeros(SHAPE, bool)), mask)
    assert mine.label_all_tasks()["id"] == first["id"], "what is open stays open"
