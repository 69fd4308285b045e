"""A person at a real browser: sees the pre-annotation over the image, submits or corrects it, gets the next task."""

from functools import partial

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from scipy import ndimage

from demo.phantoms import SIZE_PX
from tests.acceptance import editor as editors
from tests.acceptance.editor import Editor
from tests.acceptance.product import pre_annotation

SHAPE = (SIZE_PX, SIZE_PX)
WORTH_SEEING_PX = 300  # of 65 536: less is a speck, and a speck would prove little
_TRIES = 4


@pytest.fixture(scope="module")
def editor(running, travelled, chromium_path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=editors.ARGUMENTS)
        yield Editor(browser.new_page(viewport=editors.WINDOW), running.server, running.project.id)
        browser.close()


@pytest.fixture
def head(running, travelled):
    """The next task, one whose pre-annotation can be seen; the script answers a few that would prove nothing."""
    for _ in range(_TRIES):
        task = running.annotator.next_task()
        assert task["id"] == running.head()
        if pre_annotation(task, SHAPE).sum() >= WORTH_SEEING_PX:
            return task
        answer = running.annotator.answer(task)
        running.wait_for("the annotation", partial(running.annotation, answer.annotation_id))
    return pytest.fail(f"{_TRIES} pre-annotations in a row draw next to nothing")


def overlap(one, other):
    """Intersection over union of two masks."""
    return (one & other).sum() / (one | other).sum()


def shown(running, editor, mask):
    """Wait until the mask is what is drawn over the image, but for its rim."""
    running.wait_for("the pre-annotation to be drawn", lambda: overlap(editor.drawn(SHAPE), mask) > 0.9, 60)


def test_a_person_sees_the_pre_annotation_and_accepts_it(running, editor, head, artifacts):
    served = editor.label_all_tasks()
    mask = pre_annotation(head, SHAPE)
    assert served["id"] == head["id"]
    try:
        running.wait_for("the image", lambda: editor.shows(running.project.pairs) == head["id"], 60)
        shown(running, editor, mask)
    finally:
        editor.keep(artifacts / "1-pre-annotation.png")
    following = editor.submit()

    row = running.wait_for("the annotation", lambda: running.of_task(head["id"]))
    assert row.parent_prediction == head["predictions"][0]["id"]
    assert (row.completed_by, row.skipped, row.problem) == (running.user_id(), False, None)
    assert row.lead_time_seconds > 0
    assert np.array_equal(running.stored_mask(head["id"]), mask)

    assert following["id"] == running.head()
    try:
        running.wait_for("the next image", lambda: editor.shows(running.project.pairs) == following["id"], 60)
    finally:
        editor.keep(artifacts / "2-next-task.png")


def test_a_person_corrects_the_pre_annotation(running, editor, head, artifacts):
    assert editor.label_all_tasks()["id"] == head["id"]
    mask = pre_annotation(head, SHAPE)
    stroke = far_from(mask)
    try:
        shown(running, editor, mask)
        editor.paint(stroke, SHAPE)
        running.wait_for("the stroke", lambda: editor.drawn(SHAPE)[stroke[0]] and editor.drawn(SHAPE)[stroke[1]], 60)
    finally:
        editor.keep(artifacts / "3-corrected.png")
    following = editor.submit()

    row = running.wait_for("the annotation", lambda: running.of_task(head["id"]))
    stored = running.stored_mask(head["id"])
    added = stored & ~mask
    assert row.parent_prediction == head["predictions"][0]["id"]
    assert not (mask & ~stored).any(), "what was not touched is lost"
    assert all(added[point] for point in stroke), "the stroke is not in the stored mask"
    assert distance_to(stroke)[added].max() < 30, "something far from the stroke was added"
    assert following["id"] == running.head()


def far_from(mask):
    """Two ends of a short horizontal stroke, (row, column), as far from the mask as can be."""
    room = ndimage.distance_transform_edt(~mask)
    margin = 50
    row, column = np.unravel_index(room[margin:-margin, margin:-margin].argmax(), (SIZE_PX - 2 * margin,) * 2)
    row, column = int(row) + margin, int(column) + margin
    return [(row, column - 20), (row, column + 20)]


def distance_to(stroke):
    """(H, W): how far each pixel is from the line between the ends of a stroke, in pixels."""
    line = np.zeros(SHAPE, dtype=bool)
    (row, first), (_, last) = stroke
    line[row, first : last + 1] = True
    return ndimage.distance_transform_edt(~line)
