"""A person at a real browser: sees the pre-annotation over the image, submits or corrects it, gets the next task; lets
smart tools suggest; looks through what was annotated.
"""

from functools import partial

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from scipy import ndimage

from demo.annotator import dice
from demo.data import true_mask
from demo.phantoms import SIZE_PX
from tests.acceptance import editor as editors
from tests.acceptance.editor import Editor
from tests.acceptance.product import mask_of, pre_annotation

SHAPE = (SIZE_PX, SIZE_PX)
WORTH_SEEING_PX = 300  # of 65 536: less is a speck, and a speck would prove little
_TRIES = 4
MARGIN_PX = 5


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
    running.wait_for("the mask to be drawn", lambda: overlap(editor.drawn(SHAPE), mask) > 0.9, 60)


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


def test_a_person_boxes_the_lesion_and_takes_what_is_suggested(running, editor, head, artifacts):
    """The pre-annotation is thrown away: what is stored comes from the box alone."""
    assert editor.label_all_tasks()["id"] == head["id"]
    truth = true_mask(running.project.pairs[head["id"]])
    corners = around(truth)
    shown(running, editor, pre_annotation(head, SHAPE))
    editor.discard_all()
    try:
        suggested = mask_of(editor.box(corners, SHAPE), SHAPE)
        shown(running, editor, suggested)
    finally:
        editor.keep(artifacts / "4-smart-box.png")
    stored, origins = taken(running, editor, head)

    assert np.array_equal(stored, suggested)
    (top, left), (bottom, right) = corners
    box = np.zeros(SHAPE, dtype=bool)
    box[top : bottom + 1, left : right + 1] = True
    assert dice(stored, truth) > max(0.7, dice(box, truth)), "the box itself is as good as what is suggested in it"
    assert not (stored & ~box).any(), "something outside the box is suggested"
    assert origins == ["brushlabels"], "the box itself is left in the annotation"


def test_a_person_points_at_the_lesion_and_rules_a_part_of_it_out(running, editor, head, artifacts):
    assert editor.label_all_tasks()["id"] == head["id"]
    truth = true_mask(running.project.pairs[head["id"]])
    inside = deepest(truth & pre_annotation(head, SHAPE))
    shown(running, editor, pre_annotation(head, SHAPE))
    editor.discard_all()
    try:
        first = mask_of(editor.point(inside, SHAPE), SHAPE)
        shown(running, editor, first)
    finally:
        editor.keep(artifacts / "5-smart-point.png")
    assert first[inside] and ndimage.label(first)[1] == 1, "a point asks for the piece it lies on"
    assert dice(first, truth) > 0.6
    outside = farthest(first, inside)
    try:
        second = mask_of(editor.point(outside, SHAPE, rule_out=True), SHAPE)
        shown(running, editor, second)
    finally:
        editor.keep(artifacts / "6-smart-point-ruled-out.png")
    stored, origins = taken(running, editor, head)

    assert np.array_equal(stored, second)
    assert stored[inside] and not stored[outside]
    assert not (stored & ~first).any(), "ruling out added something"
    assert origins == ["brushlabels"], "a point itself is left in the annotation"


def test_a_lead_looks_through_what_was_annotated_newest_first(running, editor, artifacts):
    annotated = {
        annotation["task"]: annotation["created_at"]
        for task_id in running.project.pairs
        for annotation in running.label_studio(f"/api/tasks/{task_id}/annotations/")
    }
    newest_first = sorted(annotated, key=lambda task_id: annotated[task_id], reverse=True)
    try:
        assert editor.open_tab("Review") == newest_first
        assert set(newest_first) < set(running.project.pairs), "nothing is left that the tab should not list"
    finally:
        editor.keep(artifacts / "7-review.png")
    try:
        editor.open_row(0)
        shown(running, editor, running.stored_mask(newest_first[0]))
    finally:
        editor.keep(artifacts / "8-reviewed.png")


def taken(running, editor, task):
    """Accept what is suggested and submit: the mask that is stored, and the kinds of Label Studio's regions."""
    editor.accept()
    following = editor.submit()
    running.wait_for("the annotation", lambda: running.of_task(task["id"]))
    assert following["id"] == running.head()
    (annotation,) = running.label_studio(f"/api/tasks/{task['id']}/annotations/")
    return running.stored_mask(task["id"]), [region["type"] for region in annotation["result"]]


def around(mask):
    """Two corners, (row, column), of a box a little larger than the mask, as far as there is image."""
    rows, columns = np.nonzero(mask)
    first = [max(0, int(along.min()) - MARGIN_PX) for along in (rows, columns)]
    last = [min(SIZE_PX - 1, int(along.max()) + MARGIN_PX) for along in (rows, columns)]
    return tuple(first), tuple(last)


def deepest(mask):
    """The pixel of a mask that is farthest from its rim."""
    return tuple(int(at) for at in np.unravel_index(ndimage.distance_transform_edt(mask).argmax(), SHAPE))


def farthest(mask, place):
    """The pixel of a mask that is farthest from a place."""
    pixels = np.argwhere(mask)
    return tuple(int(at) for at in pixels[np.hypot(*(pixels - place).T).argmax()])


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
